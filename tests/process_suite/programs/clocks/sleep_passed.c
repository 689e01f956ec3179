/* A deadline that has passed is over at once. */
#include "suite.h"

int main(void)
{
    about("deadlines that have passed");
    long long end = now_ns(CLOCK_MONOTONIC) - 1;
    prepare_here();
    struct timespec until = {end / 1000000000, end % 1000000000};
    long long begun = now_ns(CLOCK_MONOTONIC);
    check(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0);
    check(now_ns(CLOCK_MONOTONIC) - begun < 5000000000LL);
    return carried();
}
