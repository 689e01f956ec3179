#include "suite.h"

#include <pthread.h>

int main(void)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    about("a plain mutex, held over the fork");
    pthread_mutex_lock(&mutex);
    prepare_here();
    check(pthread_mutex_trylock(&mutex) == EBUSY);
    check(pthread_mutex_unlock(&mutex) == 0 && pthread_mutex_trylock(&mutex) == 0);
    return carried();
}
