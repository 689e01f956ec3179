/* The first thread has ended by pthread_exit(3), and another one forks. */
#include "suite.h"

#include <pthread.h>

static pthread_t first;

static void *body(void *argument)
{
    check(pthread_join(first, NULL) == 0);
    sleep_ms(10);
    prepare_here();
    check(suite.crossed);
    carried();
    _exit(0);
    return argument;
}

int main(void)
{
    pthread_t thread;
    about("a process whose first thread has ended");
    first = pthread_self();
    check(pthread_create(&thread, NULL, body, NULL) == 0);
    pthread_exit(NULL);
}
