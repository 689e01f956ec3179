/* What it has reserved are processors of its host. */
#include "suite.h"

#include <sched.h>

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

int main(void)
{
    struct attributes wanted = {
        .size = sizeof wanted,
        .policy = 6,
        .runtime = 1000000,
        .deadline = 100000000,
        .period = 100000000,
    };
    about("the scheduling class of deadlines (SCHED_DEADLINE)");
    if (syscall(SYS_sched_setattr, 0, &wanted, 0) != 0)
        return absent("no such time is to be had");
    prepare_here();
    if (suite.way == PLAIN) {
        check(sched_getscheduler(0) == 6);
        return carried();
    }
    check(sched_getscheduler(0) == SCHED_OTHER);
    return is_new();
}
