/* A thread of before the fork, cancelled in the child. */
#include "suite.h"

#include <pthread.h>

static int cleaned;

static void clean(void *argument)
{
    (void)argument;
    cleaned++;
}

static void *waiting(void *argument)
{
    pthread_cleanup_push(clean, NULL);
    read(*(int *)argument, argument, 1);
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void)
{
    static int ends[2];
    pthread_t thread;
    void *result = NULL;
    about("a thread in read(2) that the child cancels");
    check(pipe(ends) == 0 && pthread_create(&thread, NULL, waiting, ends) == 0);
    sleep_ms(20);
    prepare_here();
    if (suite.way == FORK) {
        check(strcmp(status_of("Threads"), "1") == 0);
        return is_new();
    }
    check(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
    check(result == PTHREAD_CANCELED && cleaned == 1);
    return carried();
}
