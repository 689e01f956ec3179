#include "suite.h"

#include <pthread.h>

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static void *other(void *argument)
{
    *(int *)argument = pthread_rwlock_trywrlock(&lock);
    return NULL;
}

int main(void)
{
    int got = 0;
    pthread_t thread;
    about("a lock for readers and writers, held over the fork");
    check(pthread_rwlock_rdlock(&lock) == 0);
    prepare_here();
    check(pthread_create(&thread, NULL, other, &got) == 0 && pthread_join(thread, NULL) == 0 &&
        got == EBUSY);
    check(pthread_rwlock_unlock(&lock) == 0 && pthread_rwlock_trywrlock(&lock) == 0);
    return carried();
}
