/* A deadline of before the fork on a clock of before the fork. */
#include "suite.h"

int main(void)
{
    about("deadlines of clock_nanosleep(2)");
    long long end = now_ns(CLOCK_MONOTONIC) + 400000000LL;
    prepare_here();
    struct timespec until = {end / 1000000000, end % 1000000000};
    check(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0);
    long long late = now_ns(CLOCK_MONOTONIC) - end;
    check(late >= 0 && late < 20 * 1000000000LL);
    return carried();
}
