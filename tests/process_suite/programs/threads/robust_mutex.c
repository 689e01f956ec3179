/* A robust mutex whose owner ends in the child: the next one is told. */
#include "suite.h"

#include <pthread.h>

static pthread_mutex_t mutex;

static void *owner(void *argument)
{
    pthread_mutex_lock(&mutex);
    return argument;
}

int main(void)
{
    pthread_mutexattr_t kind;
    pthread_t thread;
    about("robust mutexes");
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    check(pthread_mutex_init(&mutex, &kind) == 0);
    prepare_here();
    check(pthread_create(&thread, NULL, owner, NULL) == 0 && pthread_join(thread, NULL) == 0);
    check(pthread_mutex_lock(&mutex) == EOWNERDEAD && pthread_mutex_consistent(&mutex) == 0);
    check(pthread_mutex_unlock(&mutex) == 0);
    return carried();
}
