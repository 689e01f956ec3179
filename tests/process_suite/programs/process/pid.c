/* A new one in fork mode, the same one in a pid namespace of its own in whole-process mode. */
#include "suite.h"

int main(void)
{
    about("process id");
    pid_t before = getpid();
    prepare_here();
    check(getpid() == (pid_t)syscall(SYS_getpid) && getpid() == gettid());
    char link[32] = {0};
    check(readlink("/proc/self", link, sizeof link - 1) > 0);
    if (suite.way == FORK) {
        check(getpid() != before && getpid() > 1 && atoi(link) == getpid());
        return is_new();
    }
    check(getpid() == before);
    return carried();
}
