/* Each flag as it is read back, and what two of them do. */
#include "suite.h"

#include <signal.h>

/* SA_RESTORER, which libc sets. */
enum { RESTORER = 0x04000000 };

static volatile sig_atomic_t calls;

static void handler(int signal)
{
    if (++calls == 1)
        raise(signal);
}

int main(void)
{
    const int flags[] = {SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_ONSTACK, SA_RESTART, SA_NODEFER,
                         (int)SA_RESETHAND};
    about("flags of signal actions (SA_*)");
    for (int at = 0; at < 7; at++) {
        struct sigaction action = {.sa_handler = handler, .sa_flags = flags[at]};
        check(sigaction(SIGRTMIN + at, &action, NULL) == 0);
    }
    prepare_here();
    for (int at = 0; at < 7; at++) {
        struct sigaction now;
        check(sigaction(SIGRTMIN + at, NULL, &now) == 0 && (now.sa_flags & ~RESTORER) == flags[at]);
    }
    /* SA_NODEFER: the handler is entered again from within. */
    raise(SIGRTMIN + 5);
    check(calls == 2);
    /* SA_RESETHAND: the action is gone with the first signal. */
    raise(SIGRTMIN + 6);
    struct sigaction now;
    check(sigaction(SIGRTMIN + 6, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    return carried();
}
