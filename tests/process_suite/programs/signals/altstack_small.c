/* Threads whose alternative signal stacks have no room to spare: of AT_MINSIGSTKSZ, and of the least that the
   kernel takes, where a frame with AVX-512 has none at all. */
#include "suite.h"

#include <pthread.h>
#include <sys/auxv.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
enum { THREADS = 2, LEAST = 2048 };

static pthread_barrier_t all;

static void *waits(void *data)
{
    stack_t stack = {.ss_size = *(size_t *)data}, now;
    stack.ss_sp = malloc(stack.ss_size);
    check(sigaltstack(&stack, NULL) == 0);
    pthread_barrier_wait(&all);
    pthread_barrier_wait(&all);
    check(sigaltstack(NULL, &now) == 0 && now.ss_sp == stack.ss_sp);
    check(now.ss_size == stack.ss_size && now.ss_flags == 0);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    size_t frame = getauxval(AT_MINSIGSTKSZ);
    size_t sizes[THREADS] = {LEAST, frame > LEAST ? frame : LEAST};
    about("alternative stacks of threads with no room to spare");
    check(pthread_barrier_init(&all, NULL, THREADS + 1) == 0);
    for (int at = 0; at < THREADS; at++)
        check(pthread_create(&threads[at], NULL, waits, &sizes[at]) == 0);
    pthread_barrier_wait(&all);
    prepare_here();
    if (suite.way == FORK)
        return is_new();
    pthread_barrier_wait(&all);
    for (int at = 0; at < THREADS; at++)
        check(pthread_join(threads[at], NULL) == 0);
    return carried();
}
