#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    char now[16];
    about("name (PR_SET_NAME)");
    prctl(PR_SET_NAME, "fifteen letters");
    prepare_here();
    check(prctl(PR_GET_NAME, now) == 0 && strcmp(now, "fifteen letters") == 0);
    check(strcmp(status_of("Name"), "fifteen letters") == 0);
    return carried();
}
