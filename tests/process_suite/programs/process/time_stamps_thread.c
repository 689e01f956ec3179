/* PR_SET_TSC of another thread, whose own it is. */
#include "suite.h"

#include <pthread.h>
#include <sys/prctl.h>

static pthread_barrier_t both;

static void *without(void *data)
{
    int *refused = data;
    *refused = prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) != 0;
    prctl(PR_SET_NAME, "timeless");
    pthread_barrier_wait(&both);
    for (;;)
        pause();
    return NULL;
}

int main(void)
{
    pthread_t thread;
    int refused = 0;
    about("no time stamp counter for another thread (PR_SET_TSC)");
    check(pthread_barrier_init(&both, NULL, 2) == 0);
    check(pthread_create(&thread, NULL, without, &refused) == 0);
    pthread_barrier_wait(&both);
    if (refused)
        return absent("PR_SET_TSC");
    prepare_here();
    return suite.way == FORK ? is_new() : carried();
}
