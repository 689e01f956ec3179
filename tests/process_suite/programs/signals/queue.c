/* Real-time signals wait in a queue, with their values, in order. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    sigset_t set;
    struct timespec none = {0, 0};
    siginfo_t info;
    about("a queue of real-time signals with values");
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int value = 1; value <= 3; value++)
        check(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = value}) == 0);
    prepare_here();
    if (suite.way == FORK) {
        check(sigtimedwait(&set, &info, &none) == -1 && errno == EAGAIN);
        return is_new();
    }
    for (int value = 1; value <= 3; value++)
        check(sigtimedwait(&set, &info, &none) == SIGRTMIN + 1 && info.si_value.sival_int == value);
    check(sigtimedwait(&set, &info, &none) == -1);
    return carried();
}
