#include "suite.h"

#include <sys/resource.h>

int main(void)
{
    struct rlimit now, wanted = {.rlim_cur = 200, .rlim_max = 300};
    about("a hard limit that was lowered");
    check(setrlimit(RLIMIT_NOFILE, &wanted) == 0);
    prepare_here();
    check(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 200 && now.rlim_max == 300);
    int fd = 0;
    while ((fd = dup(1)) >= 0)
        check(fd < 200);
    check(errno == EMFILE);
    return carried();
}
