/* The scheduling class of deadlines, of which libc's headers tell nothing. */
#ifndef DEADLINE_H
#define DEADLINE_H

#include "suite.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#define DEADLINE 6

/* struct sched_attr of sched_setattr(2), as it began. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* False: no such time is to be had. */
static inline bool deadline_reserve(void)
{
    struct attributes wanted = {.size = sizeof wanted, .policy = DEADLINE,
        .runtime = 200000, .deadline = 100000000, .period = 100000000};
    return syscall(SYS_sched_setattr, 0, &wanted, 0) == 0;
}

static volatile int deadline_tid, deadline_is_refused;

static inline void *deadline_thread(void *data)
{
    prctl(PR_SET_NAME, "reserved");
    deadline_is_refused = !deadline_reserve();
    deadline_tid = gettid();
    for (;;)
        pause();
    return data;
}

/* A thread called "reserved" that has such time: its id, or 0. */
static inline int deadline_start(void)
{
    pthread_t thread;
    check(pthread_create(&thread, NULL, deadline_thread, NULL) == 0);
    while (deadline_tid == 0)
        sleep_ms(1);
    return deadline_is_refused ? 0 : deadline_tid;
}

/* The class of a thread: the caller's by 0. */
static inline uint32_t policy_of(int tid)
{
    struct attributes now = {0};
    check(syscall(SYS_sched_getattr, tid, &now, sizeof now, 0) == 0);
    return now.policy;
}

#endif
