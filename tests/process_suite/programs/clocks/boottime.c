#include "suite.h"

int main(void)
{
    about("CLOCK_BOOTTIME goes on");
    long long before = now_ns(CLOCK_BOOTTIME);
    prepare_here();
    long long passed = now_ns(CLOCK_BOOTTIME) - before;
    check(passed >= 0 && passed < 60 * 1000000000LL);
    return carried();
}
