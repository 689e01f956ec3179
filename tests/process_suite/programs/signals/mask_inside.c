/* Forks in a handler: its return gives the mask back that was there before. */
#include "suite.h"

#include <signal.h>

static void handler(int signal)
{
    sigset_t now;
    prepare_here();
    sigprocmask(SIG_BLOCK, NULL, &now);
    check(sigismember(&now, signal) && sigismember(&now, SIGUSR2));
}

int main(void)
{
    sigset_t set, now;
    struct sigaction action = {.sa_handler = handler};
    about("a fork inside of a signal handler");
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_SETMASK, &set, NULL);
    raise(SIGUSR1);
    sigprocmask(SIG_BLOCK, NULL, &now);
    check(suite.crossed && !sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2));
    check(sigismember(&now, SIGHUP));
    return carried();
}
