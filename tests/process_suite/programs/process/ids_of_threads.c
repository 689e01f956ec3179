/* Threads that are other users than the one that calls prepare, as servers of network file systems have them. */
#include "suite.h"

#include <pthread.h>
#include <sys/fsuid.h>

static pthread_barrier_t there;

static void *other(void *unused)
{
    setfsuid(4323);
    pthread_barrier_wait(&there);
    for (;;)
        pause();
    return unused;
}

int main(void)
{
    pthread_t thread;
    about("threads of different credentials");
    pthread_barrier_init(&there, NULL, 2);
    check(pthread_create(&thread, NULL, other, NULL) == 0);
    pthread_barrier_wait(&there);
    prepare_here();
    check(setfsuid(-1) == 0);
    return suite.way == FORK ? is_new() : carried();
}
