/* Each limit, lowered below what the other host has. */
#include "suite.h"

#include <sys/resource.h>

int main(void)
{
    struct rlimit wanted[RLIM_NLIMITS];
    about("resource limits, each");
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        check(getrlimit(which, &wanted[which]) == 0);
        rlim_t most = wanted[which].rlim_max;
        bool is_time = which == RLIMIT_CPU || which == RLIMIT_RTTIME;
        rlim_t lowered = is_time ? 5000 + which : which == RLIMIT_AS ||
            which == RLIMIT_DATA ? 1L << 45 : 0;
        if (lowered != 0 && (most == RLIM_INFINITY || most > lowered))
            wanted[which].rlim_cur = lowered;
        else if (lowered == 0 && most > 600)
            wanted[which].rlim_cur = most == RLIM_INFINITY ? 8 << 20 : most - 7;
        check(setrlimit(which, &wanted[which]) == 0);
    }
    prepare_here();
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        struct rlimit now;
        check(getrlimit(which, &now) == 0);
        if (now.rlim_cur != wanted[which].rlim_cur)
            say("limit %d: %lu instead of %lu", which, now.rlim_cur, wanted[which].rlim_cur);
        check(now.rlim_cur == wanted[which].rlim_cur && now.rlim_max == wanted[which].rlim_max);
    }
    return carried();
}
