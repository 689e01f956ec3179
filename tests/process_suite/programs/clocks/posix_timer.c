#include "suite.h"

#include <signal.h>

int main(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2,
        .sigev_value.sival_int = 77};
    struct itimerspec now, wanted = {.it_value = {100, 0}, .it_interval = {9, 0}};
    struct timespec limit = {10, 0};
    siginfo_t info;
    sigset_t set;
    timer_t timer;
    about("timers of timer_create(2)");
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 &&
        timer_settime(timer, 0, &wanted, NULL) == 0);
    prepare_here();
    if (suite.way == FORK) {
        check(timer_gettime(timer, &now) == -1 && errno == EINVAL);
        return is_new();
    }
    check(timer_gettime(timer, &now) == 0 && now.it_interval.tv_sec == 9);
    check(now.it_value.tv_sec > 40 && now.it_value.tv_sec <= 100);
    wanted = (struct itimerspec){.it_value = {0, 1000000}};
    check(timer_settime(timer, 0, &wanted, NULL) == 0);
    check(sigtimedwait(&set, &info, &limit) == SIGRTMIN + 2);
    check(info.si_code == SI_TIMER && info.si_value.sival_int == 77);
    check(timer_delete(timer) == 0);
    return carried();
}
