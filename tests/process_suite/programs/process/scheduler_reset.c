/* SCHED_RESET_ON_FORK, which is the thread's own. */
#include "suite.h"

#include <sched.h>

int main(void)
{
    struct sched_param none = {0};
    about("SCHED_IDLE with SCHED_RESET_ON_FORK");
    check(sched_setscheduler(0, SCHED_IDLE | SCHED_RESET_ON_FORK, &none) == 0);
    prepare_here();
    if (suite.way == FORK) {
        /* As after fork(2). Idle is not among what is reset, the flag is. */
        check((sched_getscheduler(0) & SCHED_RESET_ON_FORK) == 0);
        return is_new();
    }
    check(sched_getscheduler(0) == (SCHED_IDLE | SCHED_RESET_ON_FORK));
    return carried();
}
