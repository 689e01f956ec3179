#include "suite.h"

#include <pthread.h>

static int destroyed;

static void destroy(void *value)
{
    destroyed += *(int *)value;
}

static void *user(void *argument)
{
    static int four = 4;
    pthread_setspecific(*(pthread_key_t *)argument, &four);
    return NULL;
}

int main(void)
{
    static int three = 3;
    pthread_key_t keys[40];
    pthread_t thread;
    about("keys of pthread_key_create(3)");
    for (int at = 0; at < 40; at++)
        check(pthread_key_create(&keys[at], destroy) == 0);
    /* Beyond 32 they are in memory of their own. */
    pthread_setspecific(keys[1], &three);
    pthread_setspecific(keys[39], &keys);
    prepare_here();
    check(pthread_getspecific(keys[1]) == &three && pthread_getspecific(keys[39]) == &keys);
    check(pthread_getspecific(keys[2]) == NULL);
    check(pthread_create(&thread, NULL, user, &keys[2]) == 0 && pthread_join(thread, NULL) == 0);
    check(destroyed == 4);
    return carried();
}
