/* Threads that register hooks of mitosis.h while the process is forked: what they hold holds up no child. */
#include "suite.h"

#include <pthread.h>

enum { THREADS = 4, PATIENCE_S = 60 };

static int nothing(void *data)
{
    (void)data;
    return 0;
}

static void *registers(void *data)
{
    (void)data;
    for (;;) {
        int returned = mitosis_after_prepare(nothing, NULL, MITOSIS_HOOK_NO_TIMEOUT);
        check(returned == MITOSIS_OK || returned == MITOSIS_ERR_LIMIT);
    }
    return NULL;
}

int main(void)
{
    pthread_t thread;
    about("hooks that another thread registers at that moment");
    check(mitosis_before_prepare(nothing, NULL, 0) == MITOSIS_OK);
    for (int at = 0; at < THREADS; at++)
        check(pthread_create(&thread, NULL, registers, NULL) == 0);
    prepare_here();
    alarm(PATIENCE_S);
    for (int at = 0; at < 100; at++) {
        int returned = mitosis_after_prepare(nothing, NULL, 0);
        check(returned == MITOSIS_OK || returned == MITOSIS_ERR_LIMIT);
    }
    return carried();
}
