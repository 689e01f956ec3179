/* What libc believes of the thread's id, and the kernel knows. */
#include "suite.h"

#include <pthread.h>
#include <signal.h>

static volatile sig_atomic_t count;

static void handler(int signal)
{
    (void)signal;
    count++;
}

int main(void)
{
    pthread_t self = pthread_self();
    about("libc's idea of the caller's thread");
    signal(SIGUSR1, handler);
    prepare_here();
    check(pthread_equal(pthread_self(), self));
    /* By the tid that libc has noted. */
    check(pthread_kill(self, SIGUSR1) == 0 && count == 1);
    check(gettid() == getpid());
    return carried();
}
