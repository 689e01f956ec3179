/* Who is told by which signal that something came: nobody, until a child says so itself. */
#include "suite.h"

static volatile sig_atomic_t signals;

static void count(int signal)
{
    (void)signal;
    signals = signals + 1;
}

int main(void)
{
    int ends[2];
    about("who is told of input by a signal (F_SETOWN, F_SETSIG, O_ASYNC)");
    signal(SIGUSR1, count);
    check(pipe(ends) == 0 && fcntl(ends[0], F_SETSIG, SIGUSR1) == 0);
    check(fcntl(ends[0], F_SETOWN, getpid()) == 0);
    check(fcntl(ends[0], F_SETFL, O_ASYNC) == 0);
    check(write(ends[1], "x", 1) == 1 && signals == 1);
    prepare_here_with_files();
    check(write(ends[1], "y", 1) == 1);
    if (suite.way == PLAIN) {
        check(signals == 2 && fcntl(ends[0], F_GETOWN) == getpid());
        return carried();
    }
    check(signals == 1 && fcntl(ends[0], F_GETOWN) == 0 && fcntl(ends[0], F_GETSIG) == 0);
    check(fcntl(ends[0], F_SETSIG, SIGUSR1) == 0 && fcntl(ends[0], F_SETOWN, getpid()) == 0);
    check(fcntl(ends[0], F_SETFL, O_ASYNC) == 0);
    check(write(ends[1], "z", 1) == 1 && signals == 2);
    return is_new();
}
