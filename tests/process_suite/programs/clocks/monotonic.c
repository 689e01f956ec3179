/* Of host-b CLOCK_MONOTONIC is seven days ahead. */
#include "suite.h"

int main(void)
{
    about("CLOCK_MONOTONIC goes on");
    long long before = now_ns(CLOCK_MONOTONIC);
    prepare_here();
    long long passed = now_ns(CLOCK_MONOTONIC) - before;
    check(passed >= 0 && passed < 60 * 1000000000LL);
    return carried();
}
