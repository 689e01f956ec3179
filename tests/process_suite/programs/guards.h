/* Pages that nobody may touch. */
#ifndef GUARDS_H
#define GUARDS_H

#include "suite.h"

#include <setjmp.h>

static sigjmp_buf before_the_write;

static void come_back(int signal)
{
    siglongjmp(before_the_write, signal);
}

/* Before the fork: the action is one of the states that cross. */
static inline void expect_faults(void)
{
    signal(SIGSEGV, come_back);
}

static inline void check_guarded(volatile char *at)
{
    if (sigsetjmp(before_the_write, 1) == 0) {
        *at = 1;
        check(!"the guard page was written");
    }
}

#endif
