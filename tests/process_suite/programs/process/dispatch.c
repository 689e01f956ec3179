/* PR_SET_SYSCALL_USER_DISPATCH of the caller, whose calls are let through for the moment. */
#include "suite.h"

#include <sys/prctl.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static volatile char selector;

static void on_sigsys(int signal)
{
    (void)signal;
    selector = 0;
}

int main(void)
{
    about("system calls that the caller has dispatched (PR_SET_SYSCALL_USER_DISPATCH)");
    struct sigaction action = {.sa_handler = on_sigsys};
    check(sigaction(SIGSYS, &action, NULL) == 0);
    if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector) != 0)
        return absent("PR_SET_SYSCALL_USER_DISPATCH");
    prepare_here();
    selector = 1;
    syscall(SYS_getppid);
    check(selector == 0);
    return carried();
}
