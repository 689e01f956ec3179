/* A deadline on CLOCK_REALTIME that passes while the child is on its way. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec wanted = {0};
    struct timespec limit = {10, 0};
    sigset_t set, pending;
    timer_t timer;
    about("a timer's deadline that passes on the way");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    check(timer_create(CLOCK_REALTIME, &event, &timer) == 0);
    clock_gettime(CLOCK_REALTIME, &wanted.it_value);
    wanted.it_value.tv_nsec += 300000000;
    if (wanted.it_value.tv_nsec >= 1000000000)
        wanted.it_value.tv_sec++, wanted.it_value.tv_nsec -= 1000000000;
    check(timer_settime(timer, TIMER_ABSTIME, &wanted, NULL) == 0);
    check(sigpending(&pending) == 0 && !sigismember(&pending, SIGUSR1));
    prepare_here();
    if (suite.way == FORK) {
        check(timer_delete(timer) == -1 && errno == EINVAL);
        return is_new();
    }
    check(sigtimedwait(&set, NULL, &limit) == SIGUSR1);
    return carried();
}
