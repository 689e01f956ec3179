/* The message names the thread. */
#include "deadline.h"

int main(void)
{
    int tid;
    about("SCHED_DEADLINE of another thread, where that is refused");
    tid = deadline_start();
    if (tid == 0)
        return absent("SCHED_DEADLINE");
    prepare_here_refusing(MITOSIS_LOSS_SCHEDULING);
    if (suite.way == FORK)
        return is_new();
    check(policy_of(tid) == DEADLINE);
    return carried();
}
