/* A condition of before the fork, with a deadline, used in the child alone. */
#include "suite.h"

#include <pthread.h>

int main(void)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_condattr_t kind;
    pthread_cond_t changed;
    struct timespec until;
    about("deadlines of condition variables");
    pthread_condattr_init(&kind);
    pthread_condattr_setclock(&kind, CLOCK_MONOTONIC);
    check(pthread_cond_init(&changed, &kind) == 0);
    prepare_here();
    long long begun = now_ns(CLOCK_MONOTONIC), end = begun + 30000000;
    until.tv_sec = end / 1000000000, until.tv_nsec = end % 1000000000;
    pthread_mutex_lock(&mutex);
    check(pthread_cond_timedwait(&changed, &mutex, &until) == ETIMEDOUT);
    check(now_ns(CLOCK_MONOTONIC) >= end);
    return carried();
}
