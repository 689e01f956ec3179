#include "suite.h"

#include <pthread.h>

static int cleaned;

static void clean(void *argument)
{
    cleaned += *(int *)argument;
}

static void *waiting(void *argument)
{
    pthread_cleanup_push(clean, argument);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void)
{
    static int one = 1;
    int before = 0;
    pthread_t thread;
    void *result = NULL;
    about("cancellation: the caller's state, and of a thread made in the child");
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    prepare_here();
    check(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before) == 0 &&
        before == PTHREAD_CANCEL_DISABLE);
    check(pthread_create(&thread, NULL, waiting, &one) == 0);
    sleep_ms(5);
    check(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
    check(result == PTHREAD_CANCELED && cleaned == 1);
    return carried();
}
