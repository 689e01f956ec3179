#include "suite.h"

#include <signal.h>

static volatile sig_atomic_t blocked, nested;

static void inner(int signal)
{
    (void)signal;
    nested++;
}

static void outer(int number)
{
    sigset_t now;
    (void)number;
    raise(SIGUSR2);
    sigprocmask(SIG_BLOCK, NULL, &now);
    blocked = sigismember(&now, SIGUSR2) && nested == 0;
}

int main(void)
{
    struct sigaction action = {.sa_handler = outer};
    about("signals that are blocked while a handler runs");
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, NULL);
    signal(SIGUSR2, inner);
    prepare_here();
    raise(SIGUSR1);
    check(blocked == 1 && nested == 1);
    return carried();
}
