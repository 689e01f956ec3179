/* The message names the thread. */
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
    pthread_t thread;
    about("SCHED_DEADLINE of another thread, where that is refused");
    check(pthread_create(&thread, NULL, reserved, NULL) == 0);
    while (tid == 0)
        sleep_ms(1);
    if (is_refused)
        return absent("SCHED_DEADLINE");
    prepare_here_refusing(MITOSIS_LOSS_SCHEDULING);
    if (suite.way == FORK)
        return is_new();
    check(syscall(SYS_sched_getattr, tid, &now, sizeof now, 0) == 0);
    check(now.policy == DEADLINE);
    return carried();
}
