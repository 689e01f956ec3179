#include "suite.h"

int main(void)
{
    about("errno");
    int *place = &errno;
    errno = 0;
    prepare_here();
    check(&errno == place);
    check(open("/nonexistent/file", O_RDONLY) == -1 && errno == ENOENT);
    check(*place == ENOENT && strcmp(strerror(ENOENT), "No such file or directory") == 0);
    return carried();
}
