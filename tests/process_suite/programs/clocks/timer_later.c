/* Timers of the child's own, with a thread that libc makes for them. */
#include "suite.h"

#include <signal.h>

static volatile int called;

static void notified(union sigval value)
{
    called = value.sival_int;
}

int main(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notified,
                             .sigev_value.sival_int = 5};
    struct itimerspec soon = {.it_value = {0, 1000000}};
    timer_t timer;
    about("timers made after the fork, that call a function");
    prepare_here();
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 &&
        timer_settime(timer, 0, &soon, NULL) == 0);
    for (int tries = 0; called == 0 && tries < 5000; tries++)
        sleep_ms(1);
    check(called == 5);
    return carried();
}
