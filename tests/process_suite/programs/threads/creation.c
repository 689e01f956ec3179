/* Threads of the child's own: stacks that libc had cached before the fork, and new ones. */
#include "suite.h"

#include <pthread.h>

static int sum;

static void *body(void *argument)
{
    volatile char frame[100000];
    frame[0] = 1;
    __atomic_add_fetch(&sum, *(int *)argument + frame[0], __ATOMIC_SEQ_CST);
    return argument;
}

static void round_of(int count)
{
    pthread_t threads[8];
    static int four = 4;
    for (int at = 0; at < count; at++)
        check(pthread_create(&threads[at], NULL, body, &four) == 0);
    for (int at = 0; at < count; at++)
        check(pthread_join(threads[at], NULL) == 0);
}

int main(void)
{
    about("creation of threads after the fork");
    round_of(3);
    prepare_here();
    round_of(8);
    check(sum == 11 * 5);
    return carried();
}
