/* SCHED_DEADLINE of another thread, whose reservation is its host's: the child is told, and may make one anew. */
#include "deadline.h"

int main(void)
{
    struct mitosis_loss loss = {.size = sizeof loss};
    int tid;
    about("SCHED_DEADLINE of another thread");
    tid = deadline_start();
    if (tid == 0)
        return absent("SCHED_DEADLINE");
    prepare_here_with_files();
    if (suite.way == FORK)
        return is_new();
    if (suite.way == PLAIN) {
        check(policy_of(tid) == DEADLINE);
        return carried();
    }
    check(policy_of(tid) == SCHED_OTHER && mitosis_lost(0, &loss) == MITOSIS_OK);
    check(loss.kind == MITOSIS_LOSS_SCHEDULING && loss.fd == -1 && strstr(loss.was, "'reserved'"));
    return is_new();
}
