/* A child has used no processor time yet, as after fork(2). */
#include "suite.h"

#include <sys/resource.h>
#include <sys/times.h>

int main(void)
{
    struct rusage used;
    about("processor time used");
    for (long long begun = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        now_ns(CLOCK_PROCESS_CPUTIME_ID) - begun < 50000000LL;)
        ;
    prepare_here();
    check(getrusage(RUSAGE_SELF, &used) == 0);
    long long now = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    if (suite.way != PLAIN) {
        check(now < 50000000LL && now_ns(CLOCK_THREAD_CPUTIME_ID) < 50000000LL);
        return is_new();
    }
    check(now >= 50000000LL);
    return carried();
}
