// One thread a wait, and what ends it. Each has objects of its own, so that what ends one wait ends no other.
//
// A wait that a signal handler interrupts is begun again where the call does not do so itself (EINTR): no
// program can do without, and a fork of the whole process is allowed to show as a signal.
#include "waits.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WAITS = 400, STACK_BYTES = 256 << 10, STAND_TRIES = 2000, TRY_NS = 5000000 };
// A wait that nothing ended; nobody waits that long for a test.
enum { FOREVER_S = 1000 };

struct wait {
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  pthread_rwlock_t rwlock;
  pthread_barrier_t barrier;
  sem_t semaphore;
  // Two ends that talk, and a third one that watches them.
  int in, out, watch;
  atomic_uint word;
  atomic_int tid;
  atomic_bool standing;
  bool found;
  atomic_bool over;
  int number;
};

struct kind {
  const char *name;
  // Whether what is made for the wait could be made.
  bool (*make)(struct wait *);
  // The wait itself: whether it found what it waited for.
  bool (*wait)(struct wait *);
  // What ends it.
  void (*end)(struct wait *);
  // It does not sleep.
  bool runs;
};

static struct wait waits[MAX_WAITS];
static int wait_count;
static __thread int own_number;

static struct timespec from_now(clockid_t clock, int seconds) {
  struct timespec at;
  clock_gettime(clock, &at);
  at.tv_sec += seconds;
  return at;
}

// --- locks -----------------------------------------------------------------------------------------

static bool make_nothing(struct wait *wait) {
  (void)wait;
  return true;
}

// The main thread holds it.
static bool make_locked(struct wait *wait) { return pthread_mutex_lock(&wait->mutex) == 0; }
static bool wait_mutex(struct wait *wait) {
  return pthread_mutex_lock(&wait->mutex) == 0 && pthread_mutex_unlock(&wait->mutex) == 0;
}
static void end_mutex(struct wait *wait) { pthread_mutex_unlock(&wait->mutex); }

static bool wait_condition(struct wait *wait) {
  bool well = pthread_mutex_lock(&wait->mutex) == 0;
  while (well && atomic_load(&wait->word) == 0)
    well = pthread_cond_wait(&wait->condition, &wait->mutex) == 0;
  return pthread_mutex_unlock(&wait->mutex) == 0 && well;
}
static bool wait_condition_timed(struct wait *wait) {
  const struct timespec limit = from_now(CLOCK_REALTIME, FOREVER_S);
  bool well = pthread_mutex_lock(&wait->mutex) == 0;
  while (well && atomic_load(&wait->word) == 0)
    well = pthread_cond_timedwait(&wait->condition, &wait->mutex, &limit) == 0;
  return pthread_mutex_unlock(&wait->mutex) == 0 && well;
}
static void end_condition(struct wait *wait) {
  pthread_mutex_lock(&wait->mutex);
  atomic_store(&wait->word, 1);
  pthread_cond_signal(&wait->condition);
  pthread_mutex_unlock(&wait->mutex);
}

static bool wait_semaphore(struct wait *wait) {
  int got;
  while ((got = sem_wait(&wait->semaphore)) != 0 && errno == EINTR) {
  }
  return got == 0;
}
static void end_semaphore(struct wait *wait) { sem_post(&wait->semaphore); }

static bool wait_barrier(struct wait *wait) {
  const int got = pthread_barrier_wait(&wait->barrier);
  return got == 0 || got == PTHREAD_BARRIER_SERIAL_THREAD;
}
static void end_barrier(struct wait *wait) { pthread_barrier_wait(&wait->barrier); }

static bool make_written(struct wait *wait) { return pthread_rwlock_wrlock(&wait->rwlock) == 0; }
static bool make_read(struct wait *wait) { return pthread_rwlock_rdlock(&wait->rwlock) == 0; }
static bool wait_reader(struct wait *wait) {
  return pthread_rwlock_rdlock(&wait->rwlock) == 0 && pthread_rwlock_unlock(&wait->rwlock) == 0;
}
static bool wait_writer(struct wait *wait) {
  return pthread_rwlock_wrlock(&wait->rwlock) == 0 && pthread_rwlock_unlock(&wait->rwlock) == 0;
}
static void end_rwlock(struct wait *wait) { pthread_rwlock_unlock(&wait->rwlock); }

static bool wait_futex(struct wait *wait) {
  while (atomic_load(&wait->word) == 0)
    syscall(SYS_futex, &wait->word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
  return true;
}
static bool wait_futex_timed(struct wait *wait) {
  const struct timespec limit = from_now(CLOCK_MONOTONIC, FOREVER_S);
  while (atomic_load(&wait->word) == 0) {
    const long got = syscall(SYS_futex, &wait->word, FUTEX_WAIT_BITSET_PRIVATE, 0, &limit, NULL,
                             FUTEX_BITSET_MATCH_ANY);
    if (got != 0 && errno == ETIMEDOUT)
      return false;
  }
  return true;
}
static void end_futex(struct wait *wait) {
  atomic_store(&wait->word, 1);
  syscall(SYS_futex, &wait->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

// --- files -----------------------------------------------------------------------------------------

static bool make_pipe(struct wait *wait) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return false;
  wait->in = ends[0];
  wait->out = ends[1];
  return true;
}
static bool make_socket(struct wait *wait) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return false;
  wait->in = ends[0];
  wait->out = ends[1];
  return true;
}
static bool make_eventfd(struct wait *wait) {
  wait->in = wait->out = eventfd(0, EFD_CLOEXEC);
  return wait->in >= 0;
}
static bool make_timer(struct wait *wait) {
  wait->in = wait->out = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  return wait->in >= 0;
}
static bool make_watched(struct wait *wait) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0xfeed0000u + (unsigned)wait->number};
  if (!make_pipe(wait) || (wait->watch = epoll_create1(EPOLL_CLOEXEC)) < 0)
    return false;
  return epoll_ctl(wait->watch, EPOLL_CTL_ADD, wait->in, &event) == 0;
}
// A pipe that takes no byte more.
static bool make_full(struct wait *wait) {
  static const char block[4096];
  if (!make_pipe(wait) || fcntl(wait->out, F_SETPIPE_SZ, sizeof block) < 0)
    return false;
  return write(wait->out, block, sizeof block) == sizeof block;
}

// Each thread waits for its own number.
static bool wait_byte(struct wait *wait) {
  unsigned char got = 0;
  ssize_t bytes;
  while ((bytes = read(wait->in, &got, 1)) < 0 && errno == EINTR) {
  }
  return bytes == 1 && got == (unsigned char)wait->number;
}
static void end_byte(struct wait *wait) {
  const unsigned char byte = (unsigned char)wait->number;
  if (write(wait->out, &byte, 1) != 1)
    perror("write");
}
static bool wait_poll(struct wait *wait) {
  struct pollfd polled = {.fd = wait->in, .events = POLLIN};
  int got;
  while ((got = poll(&polled, 1, -1)) < 0 && errno == EINTR) {
  }
  return got == 1 && polled.revents == POLLIN && wait_byte(wait);
}
static bool wait_ppoll(struct wait *wait) {
  const struct timespec limit = {.tv_sec = FOREVER_S};
  struct pollfd polled = {.fd = wait->in, .events = POLLIN};
  sigset_t none;
  int got;
  sigemptyset(&none);
  while ((got = ppoll(&polled, 1, &limit, &none)) < 0 && errno == EINTR) {
  }
  return got == 1 && polled.revents == POLLIN && wait_byte(wait);
}
static bool wait_select(struct wait *wait) {
  fd_set set;
  int got;
  do {
    FD_ZERO(&set);
    FD_SET(wait->in, &set);
    got = select(wait->in + 1, &set, NULL, NULL, NULL);
  } while (got < 0 && errno == EINTR);
  return got == 1 && FD_ISSET(wait->in, &set) && wait_byte(wait);
}
static bool wait_epoll(struct wait *wait) {
  struct epoll_event event = {0};
  int got;
  while ((got = epoll_wait(wait->watch, &event, 1, -1)) < 0 && errno == EINTR) {
  }
  return got == 1 && event.data.u64 == 0xfeed0000u + (unsigned)wait->number && wait_byte(wait);
}
static bool wait_count_of(struct wait *wait) {
  uint64_t count = 0;
  ssize_t bytes;
  while ((bytes = read(wait->in, &count, sizeof count)) < 0 && errno == EINTR) {
  }
  return bytes == sizeof count && count >= 1;
}
static void end_eventfd(struct wait *wait) { eventfd_write(wait->out, 1); }
static void end_timer(struct wait *wait) {
  const struct itimerspec soon = {.it_value.tv_nsec = 1000000};
  timerfd_settime(wait->out, 0, &soon, NULL);
}
static bool wait_writes(struct wait *wait) {
  const char byte = 'x';
  ssize_t bytes;
  while ((bytes = write(wait->out, &byte, 1)) < 0 && errno == EINTR) {
  }
  return bytes == 1;
}
static void end_writes(struct wait *wait) {
  char block[4096];
  if (read(wait->in, block, sizeof block) != sizeof block)
    perror("read of a full pipe");
}

// --- signals, sleeps, and what does not sleep ------------------------------------------------------

static bool wait_signal(struct wait *wait) {
  sigset_t set;
  int got = 0;
  (void)wait;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  return sigwait(&set, &got) == 0 && got == SIGUSR2;
}
static bool wait_signal_timed(struct wait *wait) {
  const struct timespec limit = {.tv_sec = FOREVER_S};
  sigset_t set;
  int got;
  (void)wait;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  while ((got = sigtimedwait(&set, NULL, &limit)) < 0 && errno == EINTR) {
  }
  return got == SIGUSR2;
}
// SIGUSR2 is blocked in every thread of ours.
static void end_signal(struct wait *wait) { pthread_kill(wait->thread, SIGUSR2); }

static void note(int signal) {
  (void)signal;
  atomic_store(&waits[own_number].word, 1);
}
static bool wait_pause(struct wait *wait) {
  while (atomic_load(&wait->word) == 0)
    pause();
  return true;
}
static bool wait_sleep(struct wait *wait) {
  const struct timespec long_time = {.tv_sec = FOREVER_S};
  while (atomic_load(&wait->word) == 0)
    if (nanosleep(&long_time, NULL) == 0)
      return false;
  return true;
}
static bool wait_sleep_until(struct wait *wait) {
  const struct timespec then = from_now(CLOCK_MONOTONIC, FOREVER_S);
  while (atomic_load(&wait->word) == 0)
    if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL) == 0)
      return false;
  return true;
}
// A handler that falls between the look and the sleep is lost, so it is sent until it has been seen.
static void end_sleep(struct wait *wait) {
  const struct timespec a_while = {.tv_nsec = 1000000};
  while (!atomic_load(&wait->over) && pthread_kill(wait->thread, SIGUSR1) == 0)
    nanosleep(&a_while, NULL);
}

static bool wait_spins(struct wait *wait) {
  const struct timespec a_while = {.tv_nsec = 2000000};
  while (atomic_load(&wait->word) == 0)
    nanosleep(&a_while, NULL);
  return true;
}
/* In bursts: some of these in each of several processes would leave a small machine nothing. */
static bool wait_yields(struct wait *wait) {
  const struct timespec a_while = {.tv_nsec = 5000000};
  while (atomic_load(&wait->word) == 0) {
    for (int turn = 0; turn < 50; turn++)
      sched_yield();
    nanosleep(&a_while, NULL);
  }
  return true;
}
static void end_spins(struct wait *wait) { atomic_store(&wait->word, 1); }

static const struct kind KINDS[] = {
    {"mutex", make_locked, wait_mutex, end_mutex, false},
    {"condition", make_nothing, wait_condition, end_condition, false},
    {"condition with a time", make_nothing, wait_condition_timed, end_condition, false},
    {"semaphore", make_nothing, wait_semaphore, end_semaphore, false},
    {"barrier", make_nothing, wait_barrier, end_barrier, false},
    {"read lock", make_written, wait_reader, end_rwlock, false},
    {"write lock", make_read, wait_writer, end_rwlock, false},
    {"futex", make_nothing, wait_futex, end_futex, false},
    {"futex with a time", make_nothing, wait_futex_timed, end_futex, false},
    {"pipe", make_pipe, wait_byte, end_byte, false},
    {"socket", make_socket, wait_byte, end_byte, false},
    {"poll", make_pipe, wait_poll, end_byte, false},
    {"ppoll", make_pipe, wait_ppoll, end_byte, false},
    {"select", make_pipe, wait_select, end_byte, false},
    {"epoll", make_watched, wait_epoll, end_byte, false},
    {"eventfd", make_eventfd, wait_count_of, end_eventfd, false},
    {"timerfd", make_timer, wait_count_of, end_timer, false},
    {"full pipe", make_full, wait_writes, end_writes, false},
    {"sigwait", make_nothing, wait_signal, end_signal, false},
    {"sigtimedwait", make_nothing, wait_signal_timed, end_signal, false},
    {"pause", make_nothing, wait_pause, end_sleep, false},
    {"nanosleep", make_nothing, wait_sleep, end_sleep, false},
    {"clock_nanosleep", make_nothing, wait_sleep_until, end_sleep, false},
    {"short sleeps", make_nothing, wait_spins, end_spins, true},
    {"yields", make_nothing, wait_yields, end_spins, true},
};
enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0] };

static const struct kind *kind_of(const struct wait *wait) { return &KINDS[wait->number % KIND_COUNT]; }

static void *live(void *argument) {
  struct wait *wait = argument;
  own_number = wait->number;
  atomic_store(&wait->tid, (int)syscall(SYS_gettid));
  atomic_store(&wait->standing, true);
  const bool found = kind_of(wait)->wait(wait);
  // The thread is still who it was.
  wait->found = found && own_number == wait->number;
  atomic_store(&wait->over, true);
  return wait;
}

static bool make(struct wait *wait, int number) {
  wait->number = number;
  wait->in = wait->out = wait->watch = -1;
  return pthread_mutex_init(&wait->mutex, NULL) == 0 &&
         pthread_cond_init(&wait->condition, NULL) == 0 &&
         pthread_rwlock_init(&wait->rwlock, NULL) == 0 &&
         pthread_barrier_init(&wait->barrier, NULL, 2) == 0 &&
         sem_init(&wait->semaphore, 0, 0) == 0 && kind_of(wait)->make(wait);
}

// Whether the thread has come to its wait: it sleeps.
static bool stands(const struct wait *wait) {
  char path[64], line[512], *state;
  if (!atomic_load(&wait->standing))
    return false;
  if (kind_of(wait)->runs)
    return true;
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", atomic_load(&wait->tid));
  FILE *file = fopen(path, "re");
  if (file == NULL)
    return false;
  state = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
  fclose(file);
  return state != NULL && state[2] == 'S';
}

static int refuse(const char *what) {
  fprintf(stderr, "waits: %s: %s\n", what, strerror(errno));
  return -1;
}

int waits_stand(int count) {
  const struct sigaction action = {.sa_handler = note};
  const struct timespec a_while = {.tv_nsec = TRY_NS};
  sigset_t blocked;
  pthread_attr_t attributes;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  if (count > MAX_WAITS)
    return refuse("too many threads");
  if (sigaction(SIGUSR1, &action, NULL) != 0 || pthread_sigmask(SIG_BLOCK, &blocked, NULL) != 0)
    return refuse("signals");
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  for (wait_count = 0; wait_count < count; wait_count++) {
    struct wait *wait = &waits[wait_count];
    if (!make(wait, wait_count))
      return refuse(kind_of(wait)->name);
    if ((errno = pthread_create(&wait->thread, &attributes, live, wait)) != 0)
      return refuse("pthread_create");
  }
  for (int number = 0, tries = 0; number < count; tries++) {
    if (stands(&waits[number])) {
      number++;
    } else if (tries > STAND_TRIES) {
      return refuse(kind_of(&waits[number])->name);
    } else {
      nanosleep(&a_while, NULL);
    }
  }
  return 0;
}

int waits_end(void) {
  int found = 0;
  for (int number = 0; number < wait_count; number++)
    kind_of(&waits[number])->end(&waits[number]);
  for (int number = 0; number < wait_count; number++) {
    const struct wait *wait = &waits[number];
    void *result = NULL;
    if (pthread_join(wait->thread, &result) == 0 && result == wait && wait->found)
      found++;
    else
      fprintf(stderr, "waits: thread %d (%s) did not find what it waited for\n", number,
              kind_of(wait)->name);
  }
  return found;
}
