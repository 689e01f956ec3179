/* SCHED_DEADLINE of another thread, whose reservation is its host's: the child is told, and may make one anew. */
#include "suite.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#define DEADLINE 6

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static volatile int tid, is_refused;

static void *reserved(void *data)
{
    struct attributes of_deadline = {.size = sizeof of_deadline, .policy = DEADLINE,
        .runtime = 200000, .deadline = 100000000, .period = 100000000};
    prctl(PR_SET_NAME, "reserved");
    is_refused = syscall(SYS_sched_setattr, 0, &of_deadline, 0) != 0;
    tid = gettid();
    for (;;)
        pause();
    return data;
}

int main(void)
{
    struct attributes now = {0};
    struct mitosis_loss loss = {.size = sizeof loss};
    pthread_t thread;
    about("SCHED_DEADLINE of another thread");
    check(pthread_create(&thread, NULL, reserved, NULL) == 0);
    while (tid == 0)
        sleep_ms(1);
    if (is_refused)
        return absent("SCHED_DEADLINE");
    prepare_here_with_files();
    if (suite.way == FORK)
        return is_new();
    check(syscall(SYS_sched_getattr, tid, &now, sizeof now, 0) == 0);
    if (suite.way == PLAIN) {
        check(now.policy == DEADLINE);
        return carried();
    }
    check(now.policy == SCHED_OTHER && mitosis_lost(0, &loss) == MITOSIS_OK);
    check(loss.kind == MITOSIS_LOSS_SCHEDULING && loss.fd == -1 && strstr(loss.was, "'reserved'"));
    return is_new();
}
