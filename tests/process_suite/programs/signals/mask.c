#include "suite.h"

#include <signal.h>

int main(void)
{
    sigset_t wanted, now;
    about("the signal mask");
    sigfillset(&wanted);
    sigdelset(&wanted, SIGTERM);
    sigdelset(&wanted, SIGALRM);
    sigprocmask(SIG_SETMASK, &wanted, NULL);
    sigprocmask(SIG_SETMASK, NULL, &wanted);
    prepare_here();
    sigprocmask(SIG_SETMASK, NULL, &now);
    for (int signal = 1; signal <= 64; signal++)
        check(sigismember(&now, signal) == sigismember(&wanted, signal));
    return carried();
}
