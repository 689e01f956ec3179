#include "suite.h"

#include <pthread.h>

static pthread_barrier_t barrier;

static void *other(void *argument)
{
    pthread_barrier_wait(&barrier);
    return argument;
}

int main(void)
{
    pthread_t thread;
    about("a barrier with a thread before it");
    check(pthread_barrier_init(&barrier, NULL, 2) == 0);
    check(pthread_create(&thread, NULL, other, NULL) == 0);
    sleep_ms(20);
    prepare_here();
    if (suite.way == FORK) {
        check(strcmp(status_of("Threads"), "1") == 0);
        return is_new();
    }
    int waited = pthread_barrier_wait(&barrier);
    check(waited == 0 || waited == PTHREAD_BARRIER_SERIAL_THREAD);
    check(pthread_join(thread, NULL) == 0);
    return carried();
}
