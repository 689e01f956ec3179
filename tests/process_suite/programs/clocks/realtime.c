/* The host's own: that of host-b is this machine's, too. */
#include "suite.h"

int main(void)
{
    about("CLOCK_REALTIME goes on");
    long long before = now_ns(CLOCK_REALTIME);
    prepare_here();
    long long passed = now_ns(CLOCK_REALTIME) - before;
    check(passed >= 0 && passed < 60 * 1000000000LL);
    check(time(NULL) - before / 1000000000 < 60);
    return carried();
}
