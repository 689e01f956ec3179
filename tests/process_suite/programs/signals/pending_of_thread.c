#include "suite.h"

#include <signal.h>

int main(void)
{
    sigset_t set, now;
    about("signals pending for the thread");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR2);
    prepare_here();
    sigpending(&now);
    if (suite.way == FORK) {
        check(!sigismember(&now, SIGUSR2));
        return is_new();
    }
    check(sigismember(&now, SIGUSR2));
    return carried();
}
