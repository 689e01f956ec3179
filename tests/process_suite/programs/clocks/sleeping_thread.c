/* A thread that sleeps: it wakes when its deadline has come, on another clock. */
#include "suite.h"

#include <pthread.h>

static long long late = -1, end;

static void *sleeper(void *argument)
{
    struct timespec until = {end / 1000000000, end % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
        ;
    late = now_ns(CLOCK_MONOTONIC) - end;
    return argument;
}

int main(void)
{
    pthread_t thread;
    about("a thread that sleeps to a deadline");
    end = now_ns(CLOCK_MONOTONIC) + 300000000LL;
    check(pthread_create(&thread, NULL, sleeper, NULL) == 0);
    sleep_ms(10);
    prepare_here();
    if (suite.way == FORK) {
        check(strcmp(status_of("Threads"), "1") == 0);
        return is_new();
    }
    check(pthread_join(thread, NULL) == 0 && late >= 0 && late < 20 * 1000000000LL);
    return carried();
}
