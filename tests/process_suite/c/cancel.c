#include "cancel.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 6, STAND_NS = 30000000, TRIES = 2000, TRY_NS = 1000000 };

static pthread_t threads[KINDS];
static atomic_int cleaned[KINDS];
static atomic_int standing;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static sem_t semaphore;
static int ends[2];
static _Atomic unsigned long turns;
static atomic_bool may_be_cancelled;
static pthread_key_t key;

static void clean(void *kind) { atomic_fetch_add((atomic_int *)kind, 1); }
// Runs with the mutex, as after any wait for a condition.
static void clean_and_unlock(void *kind) {
  if (pthread_mutex_unlock(&mutex) == 0)
    clean(kind);
}

static void *in_pause(void *kind) {
  pthread_cleanup_push(clean, kind);
  atomic_fetch_add(&standing, 1);
  for (;;)
    pause();
  pthread_cleanup_pop(0);
  return NULL;
}

static void *in_read(void *kind) {
  char byte;
  pthread_cleanup_push(clean, kind);
  atomic_fetch_add(&standing, 1);
  while (read(ends[0], &byte, 1) < 0 && errno == EINTR) {
  }
  pthread_cleanup_pop(0);
  return NULL;
}

static void *in_condition(void *kind) {
  pthread_mutex_lock(&mutex);
  pthread_cleanup_push(clean_and_unlock, kind);
  atomic_fetch_add(&standing, 1);
  for (;;)
    pthread_cond_wait(&condition, &mutex);
  pthread_cleanup_pop(0);
  return NULL;
}

static void *in_semaphore(void *kind) {
  pthread_cleanup_push(clean, kind);
  atomic_fetch_add(&standing, 1);
  while (sem_wait(&semaphore) != 0 && errno == EINTR) {
  }
  pthread_cleanup_pop(0);
  return NULL;
}

// Between no two instructions of this is a cancellation point.
static void *computing(void *kind) {
  int before;
  pthread_cleanup_push(clean, kind);
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before);
  atomic_fetch_add(&standing, 1);
  for (;;)
    atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);
  pthread_cleanup_pop(0);
  return NULL;
}

// Cancellation is switched off while it is asked for, and comes when it is switched on.
static void *unwilling(void *kind) {
  int before;
  const struct timespec a_while = {.tv_nsec = TRY_NS};
  pthread_setspecific(key, kind);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
  atomic_fetch_add(&standing, 1);
  while (!atomic_load(&may_be_cancelled))
    nanosleep(&a_while, NULL);
  pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
  pthread_testcancel();
  return NULL;
}

static void *(*const BODIES[KINDS])(void *) = {in_pause,     in_read,   in_condition,
                                               in_semaphore, computing, unwilling};

int cancel_stand(void) {
  const struct timespec a_while = {.tv_nsec = STAND_NS};
  if (pipe(ends) != 0 || sem_init(&semaphore, 0, 0) != 0 || pthread_key_create(&key, clean) != 0)
    return -1;
  for (int kind = 0; kind < KINDS; kind++)
    if (pthread_create(&threads[kind], NULL, BODIES[kind], &cleaned[kind]) != 0)
      return -1;
  for (int tries = 0; atomic_load(&standing) < KINDS; tries++) {
    if (tries > TRIES)
      return -1;
    nanosleep(&a_while, NULL);
  }
  // From where they have said so to where they wait.
  return nanosleep(&a_while, NULL);
}

const char *cancel_end(void) {
  static const char *const NAMES[KINDS] = {
      "pause() was not cancelled",    "read() was not cancelled",
      "a condition was not cancelled", "a semaphore was not cancelled",
      "a computation was not cancelled", "the thread that had switched it off was not cancelled"};
  const unsigned long before = atomic_load(&turns);
  const struct timespec a_while = {.tv_nsec = STAND_NS};
  for (int tries = 0; atomic_load(&turns) == before; tries++) {
    if (tries > TRIES)
      return "the thread that computes stands still";
    nanosleep(&a_while, NULL);
  }
  for (int kind = 0; kind < KINDS; kind++)
    if (pthread_cancel(threads[kind]) != 0)
      return "pthread_cancel failed";
  nanosleep(&a_while, NULL);
  if (atomic_load(&cleaned[KINDS - 1]) != 0)
    return "a thread was cancelled that had switched it off";
  atomic_store(&may_be_cancelled, true);
  for (int kind = 0; kind < KINDS; kind++) {
    void *result = NULL;
    if (pthread_join(threads[kind], &result) != 0 || result != PTHREAD_CANCELED)
      return NAMES[kind];
    if (atomic_load(&cleaned[kind]) != 1)
      return "a cleanup handler did not run once";
  }
  return pthread_mutex_trylock(&mutex) == 0 ? NULL : "the mutex of a cancelled wait is still locked";
}
