/* Blocked and sent to the process. After fork(2) nothing is pending. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    sigset_t set, now;
    about("signals pending for the process");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGUSR1);
    prepare_here();
    sigpending(&now);
    if (suite.way == FORK) {
        check(!sigismember(&now, SIGUSR1));
        return is_new();
    }
    check(sigismember(&now, SIGUSR1));
    int got = 0;
    check(sigwait(&set, &got) == 0 && got == SIGUSR1);
    return carried();
}
