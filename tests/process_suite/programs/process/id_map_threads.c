/* The kernel lets no thread enter a user namespace that has others beside it. */
#include "suite.h"

#include <pthread.h>

static void *wait_for_ever(void *data)
{
    for (;;)
        pause();
    return data;
}

int main(void)
{
    static const char *const map[] = {"0:100000:65536", NULL};
    pthread_t thread;
    about("an id map for a process of several threads");
    suite.id_map = map;
    check(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0);
    prepare_here();
    return suite.way == FORK ? is_new() : carried();
}
