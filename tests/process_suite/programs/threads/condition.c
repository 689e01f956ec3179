/* A thread that waits for a condition; in fork mode it is gone, as after fork(2). */
#include "suite.h"

#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool waits, may_go;

static void *waiting(void *argument)
{
    pthread_mutex_lock(&mutex);
    waits = true;
    while (!may_go)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    return argument;
}

int main(void)
{
    pthread_t thread;
    void *result = NULL;
    about("a thread that waits for a condition variable");
    check(pthread_create(&thread, NULL, waiting, &mutex) == 0);
    for (bool stands = false; !stands; sleep_ms(1)) {
        pthread_mutex_lock(&mutex);
        stands = waits;
        pthread_mutex_unlock(&mutex);
    }
    prepare_here();
    if (suite.way == FORK) {
        check(strcmp(status_of("Threads"), "1") == 0);
        return is_new();
    }
    pthread_mutex_lock(&mutex);
    may_go = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    check(pthread_join(thread, &result) == 0 && result == &mutex);
    return carried();
}
