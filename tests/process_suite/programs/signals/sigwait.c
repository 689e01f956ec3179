/* A thread that stands in sigwait(3). */
#include "suite.h"

#include <pthread.h>
#include <signal.h>

static volatile int got;

static void *waiting(void *argument)
{
    int signal = 0;
    sigwait(argument, &signal);
    got = signal;
    return NULL;
}

int main(void)
{
    static sigset_t set;
    pthread_t thread;
    about("a thread in sigwait(3)");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    check(pthread_create(&thread, NULL, waiting, &set) == 0);
    sleep_ms(20);
    prepare_here();
    if (suite.way == FORK) {
        check(strcmp(status_of("Threads"), "1") == 0);
        return is_new();
    }
    kill(getpid(), SIGUSR1);
    check(pthread_join(thread, NULL) == 0 && got == SIGUSR1);
    return carried();
}
