/* The fork is made by a thread that is not the first: in fork mode it becomes the only one. */
#include "suite.h"

#include <pthread.h>

static void *body(void *argument)
{
    prepare_here();
    if (suite.way == FORK) {
        check(gettid() == getpid() && strcmp(status_of("Threads"), "1") == 0);
        is_new();
        _exit(0);
    }
    return argument;
}

int main(void)
{
    pthread_t thread;
    about("a fork by another thread than the first");
    check(pthread_create(&thread, NULL, body, NULL) == 0);
    check(pthread_join(thread, NULL) == 0);
    check(strcmp(status_of("Threads"), "1") == 0);
    return carried();
}
