/* PR_SET_SYSCALL_USER_DISPATCH of another thread, none of whose calls are let through. */
#include "suite.h"

#include <pthread.h>
#include <sys/prctl.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static volatile char selector;
static volatile int is_ready, is_over;

static void on_sigsys(int signal)
{
    (void)signal;
}

static void *dispatched(void *data)
{
    prctl(PR_SET_NAME, "dispatched");
    if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector) != 0)
        is_ready = -1;
    else
        selector = 1;
    if (is_ready == 0)
        is_ready = 1;
    while (!is_over)
        ;
    selector = 0;
    return data;
}

int main(void)
{
    pthread_t thread;
    about("system calls that another thread has dispatched (PR_SET_SYSCALL_USER_DISPATCH)");
    struct sigaction action = {.sa_handler = on_sigsys};
    check(sigaction(SIGSYS, &action, NULL) == 0);
    check(pthread_create(&thread, NULL, dispatched, NULL) == 0);
    while (is_ready == 0)
        sleep_ms(1);
    if (is_ready < 0) {
        is_over = 1;
        return absent("PR_SET_SYSCALL_USER_DISPATCH");
    }
    prepare_here();
    is_over = 1;
    if (suite.way == FORK)
        return is_new();
    check(pthread_join(thread, NULL) == 0);
    return carried();
}
