/* Signals that wait for single threads, beside those of the process: each with what was sent along, in their order, and
   still there in the parent. */
#include "suite.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/syscall.h>

enum { QUEUED = 300 };

static sem_t ready, go;
static pid_t other;
static int own_is_right;

static sigset_t all_of_them(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN + 3);
    return set;
}

static int taken(sigset_t set, siginfo_t *info)
{
    struct timespec none = {0, 0};
    /* libc's makes SI_USER of SI_TKILL. */
    return (int)syscall(SYS_rt_sigtimedwait, &set, info, &none, 8);
}

static void *wait_there(void *nothing)
{
    siginfo_t info;
    sigset_t set = all_of_them();
    other = (pid_t)syscall(SYS_gettid);
    sem_post(&ready);
    while (sem_wait(&go) == -1)
        ;
    /* Its own come first: USR1 by tgkill, then three with values; then the process's. */
    own_is_right = taken(set, &info) == SIGUSR1 && info.si_code == SI_TKILL && info.si_pid == getpid();
    for (int value = 1; value <= 3; value++)
        own_is_right &= taken(set, &info) == SIGRTMIN + 3 && info.si_value.sival_int == 1000 + value;
    return nothing;
}

static void queue_to(pid_t thread, int value)
{
    siginfo_t info = {0};
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_value.sival_int = value;
    check(syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, SIGRTMIN + 3, &info) == 0);
}

static void look_at_all(pthread_t thread)
{
    siginfo_t info;
    sigset_t set = all_of_them();
    sem_post(&go);
    pthread_join(thread, NULL);
    check(own_is_right);
    check(taken(set, &info) == SIGUSR2 && info.si_code == SI_TKILL);
    check(taken(set, &info) == SIGUSR1 && info.si_code == SI_USER && info.si_pid == getpid());
    for (int value = 1; value <= QUEUED; value++) {
        check(taken(set, &info) == SIGRTMIN + 3);
        check(info.si_code == SI_QUEUE && info.si_value.sival_int == value);
    }
    check(taken(set, &info) == -1);
}

int main(void)
{
    pthread_t thread;
    sigset_t set = all_of_them();
    about("signals pending for each thread, and for the process, many");
    sem_init(&ready, 0, 0);
    sem_init(&go, 0, 0);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    check(pthread_create(&thread, NULL, wait_there, NULL) == 0);
    sem_wait(&ready);
    for (int value = 1; value <= QUEUED; value++)
        check(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = value}) == 0);
    check(kill(getpid(), SIGUSR1) == 0);
    check(syscall(SYS_tgkill, getpid(), other, SIGUSR1) == 0);
    for (int value = 1001; value <= 1003; value++)
        queue_to(other, value);
    check(raise(SIGUSR2) == 0);
    prepare_here();
    if (suite.way == FORK) {
        siginfo_t info;
        check(taken(set, &info) == -1);
        return is_new();
    }
    look_at_all(thread);
    return carried();
}
