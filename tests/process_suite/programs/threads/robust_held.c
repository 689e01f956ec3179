/* Held by the caller over the fork: it is the owner in the child, too, by its thread id. */
#include "suite.h"

#include <pthread.h>

int main(void)
{
    pthread_mutexattr_t kind;
    pthread_mutex_t mutex;
    about("mutexes with an owner, held over the fork");
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    check(pthread_mutex_init(&mutex, &kind) == 0 && pthread_mutex_lock(&mutex) == 0);
    prepare_here();
    if (suite.way == FORK) {
        /* As after fork(2): the owner is a number that is not this thread's any more. */
        check(pthread_mutex_unlock(&mutex) == EPERM);
        return is_new();
    }
    check(pthread_mutex_lock(&mutex) == EDEADLK);
    check(pthread_mutex_unlock(&mutex) == 0);
    return carried();
}
