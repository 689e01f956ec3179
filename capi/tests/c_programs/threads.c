/* A seed of all threads: the threads of this process do not notice, one that blocks every signal included. */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WAITERS = 30, SLEEPERS = 5 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int over;
static atomic_int running, turns;
static _Thread_local int own = 17;

static void *waits(void *argument)
{
    (void)argument;
    own = 18;
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(&running, 1);
    while (!over)
        pthread_cond_wait(&change, &mutex);
    pthread_mutex_unlock(&mutex);
    CHECK(own == 18);
    return NULL;
}

static void *sleeps(void *argument)
{
    unsigned long all = ~0UL, now = 0;
    const int blocked = argument != NULL;
    const struct timespec time = {.tv_nsec = 1000000};
    if (blocked)
        CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8) == 0);
    atomic_fetch_add(&running, 1);
    for (;;) {
        int done;
        CHECK(nanosleep(&time, NULL) == 0 || errno == EINTR);
        atomic_fetch_add(&turns, 1);
        pthread_mutex_lock(&mutex);
        done = over;
        pthread_mutex_unlock(&mutex);
        if (done)
            break;
    }
    if (blocked) {
        CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, 8) == 0);
        CHECK((now | 1UL << (SIGKILL - 1) | 1UL << (SIGSTOP - 1)) == all);
    }
    return NULL;
}

int main(void)
{
    mitosis_prepare_options options = {.size = sizeof options, .flags = MITOSIS_PREPARE_ALL_THREADS};
    mitosis_seed *seed;
    const char *handle = NULL;
    uint64_t whole = 0, parking = 0;
    pthread_t threads[WAITERS + SLEEPERS];
    for (int i = 0; i < WAITERS + SLEEPERS; i++)
        CHECK(pthread_create(&threads[i], NULL, i < WAITERS ? waits : sleeps,
                             i == WAITERS ? &over : NULL) == 0);
    while (atomic_load(&running) < WAITERS + SLEEPERS)
        sched_yield();
    for (int i = 0; i < 3; i++) {
        const int before = atomic_load(&turns);
        CHECK(mitosis_prepare(&options, &seed) == MITOSIS_PARENT);
        while (atomic_load(&turns) < before + SLEEPERS)
            sched_yield();
        CHECK(mitosis_seed_pause(seed, &whole, &parking) == MITOSIS_OK);
        CHECK(parking > 0 && parking <= whole);
        CHECK(mitosis_seed_pause(seed, NULL, NULL) == MITOSIS_OK);
        CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
        CHECK(mitosis_seed_handle(seed, &handle) == MITOSIS_OK);
        CHECK(mitosis_seed_drop(seed, MITOSIS_DROP_AFTER_CHILDREN) == MITOSIS_OK);
        mitosis_seed_free(seed);
    }
    pthread_mutex_lock(&mutex);
    over = 1;
    pthread_cond_broadcast(&change);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < WAITERS + SLEEPERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(own == 17);
    CHECK(mitosis_prepare(NULL, &seed) == MITOSIS_PARENT);
    FAILS(mitosis_seed_pause(seed, &whole, NULL), MITOSIS_ERR_ARGUMENT, "ALL_THREADS");
    CHECK(mitosis_seed_handle(seed, &handle) == MITOSIS_OK);
    mitosis_seed_free(seed);
    return 0;
}
