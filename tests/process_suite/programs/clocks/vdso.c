/* The vDSO's clocks are the kernel's: read both ways, one after another. */
#include "suite.h"

int main(void)
{
    const clockid_t clocks[] =
        {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW,
                                CLOCK_MONOTONIC_COARSE, CLOCK_TAI};
    about("clocks of the vDSO and of the kernel");
    now_ns(CLOCK_MONOTONIC);
    prepare_here();
    for (int at = 0; at < 6; at++) {
        struct timespec raw;
        long long first = now_ns(clocks[at]);
        check(syscall(SYS_clock_gettime, clocks[at], &raw) == 0);
        long long second = raw.tv_sec * 1000000000LL + raw.tv_nsec, third = now_ns(clocks[at]);
        check(first <= second && second <= third);
    }
    return carried();
}
