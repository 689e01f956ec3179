/* What it has reserved are processors of its host. */
#include "deadline.h"

int main(void)
{
    about("the scheduling class of deadlines (SCHED_DEADLINE)");
    if (!deadline_reserve())
        return absent("no such time is to be had");
    prepare_here();
    if (suite.way == PLAIN) {
        check(sched_getscheduler(0) == DEADLINE);
        return carried();
    }
    check(sched_getscheduler(0) == SCHED_OTHER);
    return is_new();
}
