#include "suite.h"

int main(void)
{
    /* Best effort, level 6. */
    const int wanted = 2 << 13 | 6;
    about("I/O priority");
    check(syscall(SYS_ioprio_set, 1, 0, wanted) == 0);
    prepare_here();
    check(syscall(SYS_ioprio_get, 1, 0) == wanted);
    return carried();
}
