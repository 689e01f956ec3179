/* In fork mode they run as around fork(2); a whole process goes on as if nothing had been. */
#include "suite.h"

#include <pthread.h>

static int prepared, in_parent, in_child;

static void before(void)
{
    prepared++;
}

static void parent(void)
{
    in_parent++;
}

static void child(void)
{
    in_child++;
}

int main(void)
{
    about("pthread_atfork(3) handlers of the fork itself");
    check(pthread_atfork(before, parent, child) == 0);
    prepare_here();
    check(in_parent == 0 && prepared == in_child && in_child == (suite.way == FORK));
    if (suite.way == FORK)
        return is_new();
    return carried();
}
