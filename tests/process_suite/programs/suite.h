/*
 * What each program here does around its one state.
 *
 *     int main(void)
 *     {
 *         about("umask");
 *         umask(027);
 *         prepare_here();
 *         check(umask(0) == 027);
 *         return carried();
 *     }
 *
 * SUITE_WAY tells how prepare_here() forks: "plain" not at all, so that what a program looks at is
 * seen to hold without a fork; "fork" and "whole" onto $SUITE_HOST. Everything before it is the
 * parent's, everything after it the child's. One line on standard output tells the outcome:
 *
 *     carried: STATE        the child finds what its parent had
 *     new: STATE            what differs on purpose is as docs/what-crosses.md says
 *     refused: MESSAGE      prepare or resume failed
 *     absent: WHAT          this machine has not what the state is made of; nothing was looked at
 *     differs: LINE: WHAT   anything else
 */
#ifndef SUITE_H
#define SUITE_H

#include <errno.h>
#include <fcntl.h>
#include <mitosis.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum way { PLAIN, FORK, WHOLE };

static struct {
    const char *state;
    enum way way;
    /* This process is a child. */
    bool crossed;
    /* What the children are given as their argv; NULL: nothing. */
    const char *const *argv;
    /* The id map of their user namespace; NULL: they have none of their own. */
    const char *const *id_map;
} suite;

/* One line on standard output, past stdio, whose buffers are some programs' state. */
__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    if (write(1, line, (size_t)length) != length)
        _exit(4);
}

/* What does not hold ends the program. */
#define check(condition) suite_check((condition), #condition, __LINE__)

static inline void suite_check(bool holds, const char *what, int line)
{
    int number = errno;
    if (holds)
        return;
    say("%s: %d: %s (errno %d)", suite.crossed ? "differs" : "fails before the fork", line, what,
        number);
    _exit(1);
}

/* A name for mq_open(3), shm_open(3) or sem_open(3) that no program has which runs beside. */
static inline const char *name_of_its_own(void)
{
    static char name[64];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(name, sizeof name, "/suite-%d-%ld", (int)getpid(), now.tv_nsec);
    return name;
}

/* The state, in the words of docs/what-crosses.md. */
static inline void about(const char *state)
{
    const char *way = getenv("SUITE_WAY");
    sigset_t none;
    /* Nothing of what this process inherits is to be its state. */
    close_range(3, ~0U, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    suite.state = state;
    suite.way = way && !strcmp(way, "fork") ? FORK : way && !strcmp(way, "whole") ? WHOLE : PLAIN;
}

static inline int carried(void)
{
    say("carried: %s", suite.state);
    return 0;
}

static inline int is_new(void)
{
    say("new: %s", suite.state);
    return 0;
}

/* Before the fork: nothing here can have the state. */
static inline int absent(const char *what)
{
    say("absent: %s", what);
    return 0;
}

static inline void suite_refused(void)
{
    say("refused: %s", mitosis_last_error_message());
    _exit(0);
}

/* The parent's part: one child on the other host, whose output is this process's. */
static inline void suite_resume(mitosis_seed *seed)
{
    const char *handle;
    mitosis_child *child;
    mitosis_resume_options options = {};
    mitosis_child_status status = {};
    options.size = sizeof options;
    options.host = getenv("SUITE_HOST");
    options.argv = suite.argv;
    options.id_map = suite.id_map;
    status.size = sizeof status;
    if (mitosis_seed_handle(seed, &handle) != MITOSIS_OK)
        suite_refused();
    if (mitosis_resume(handle, &options, 1, &child) != MITOSIS_OK)
        suite_refused();
    if (mitosis_child_wait(child, -1, &status) != MITOSIS_OK)
        suite_refused();
    mitosis_seed_drop(seed, MITOSIS_DROP_REVOKE);
    if (status.kind != MITOSIS_END_EXITED)
        say("differs: 0: %s", status.message);
    _exit(status.kind == MITOSIS_END_EXITED ? status.value : 1);
}

static inline void suite_prepare(uint32_t flags, uint64_t refuse, uint64_t closed)
{
    mitosis_seed *seed;
    mitosis_prepare_options options = {};
    options.size = sizeof options;
    options.flags = flags | (suite.way == WHOLE ? MITOSIS_PREPARE_ALL_THREADS : 0);
    options.refuse = refuse;
    options.close = closed;
    if (suite.way != PLAIN) {
        int returned = mitosis_prepare(&options, &seed);
        if (returned == MITOSIS_PARENT)
            suite_resume(seed);
        if (returned != MITOSIS_CHILD)
            suite_refused();
    }
    suite.crossed = true;
}

/* Forks as SUITE_WAY says. Returns in the child alone. */
static inline void prepare_here(void)
{
    suite_prepare(0, 0, 0);
}

/* The same, with open files in fork mode, too. */
static inline void prepare_here_with_files(void)
{
    suite_prepare(MITOSIS_PREPARE_CARRY_FILES, 0, 0);
}

/* The same, where losses of these kinds (MITOSIS_LOSS_*) are refused. */
static inline void prepare_here_refusing(uint64_t kinds)
{
    suite_prepare(MITOSIS_PREPARE_CARRY_FILES, kinds, 0);
}

/* The same, where losses of these kinds are closed that are refused without a word. */
static inline void prepare_here_closing(uint64_t kinds)
{
    suite_prepare(MITOSIS_PREPARE_CARRY_FILES, 0, kinds);
}

/* What a child is told of a number; 0: nothing. */
static inline uint64_t lost_as(int fd)
{
    mitosis_loss loss = {};
    loss.size = sizeof loss;
    for (size_t at = 0; mitosis_lost(at, &loss) == MITOSIS_OK; at++)
        if (loss.fd == fd)
            return loss.kind;
    return 0;
}

/* What a number answers that is not carried. It is taken all the same, so that no other file gets
 * it. */
static inline bool is_closed(int fd)
{
    char byte;
    return read(fd, &byte, 1) == -1 && errno == EBADF;
}

/* A file of this name on either host, with the runner's text in it ("kept") or of the program's
 * own. */
static inline const char *in_folder(const char *name)
{
    static char path[4][256];
    static int next;
    char *at = path[next++ % 4];
    const char *folder = getenv("SUITE_FOLDER");
    snprintf(at, sizeof path[0], "%s/%s", folder ? folder : "/tmp", name);
    return at;
}

static inline void sleep_ms(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static inline long long now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* The line of a file of /proc that begins with this, without it; "" if there is none. */
static inline const char *line_of(const char *path, const char *begin)
{
    static char line[2][512];
    static int next;
    char *at = line[next++ % 2];
    FILE *file = fopen(path, "r");
    while (file && fgets(at, sizeof line[0], file)) {
        if (strncmp(at, begin, strlen(begin)) == 0) {
            fclose(file);
            at[strcspn(at, "\n")] = 0;
            memmove(at, at + strlen(begin), strlen(at + strlen(begin)) + 1);
            return at;
        }
    }
    if (file)
        fclose(file);
    at[0] = 0;
    return at;
}

/* The same of /proc/self/status, without blanks before it. */
static inline const char *status_of(const char *field)
{
    const char *text = line_of("/proc/self/status", field);
    return text + strspn(text, ": \t");
}

/* A file of /proc or of the disk, up to 64 KiB, with its length. */
static inline size_t read_whole(const char *path, char *into, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = 0;
    while (fd >= 0 && length < size - 1 && (got = read(fd, into + length, size - 1 - length)) > 0)
        length += (size_t)got;
    if (fd >= 0)
        close(fd);
    into[length] = 0;
    return length;
}

/* Whether the line of /proc/self/maps of the mapping that holds this address has this in it. */
static inline bool is_in(const char *name, const void *address)
{
    static char maps[65536];
    unsigned long begin, end, at = (unsigned long)address;
    read_whole("/proc/self/maps", maps, sizeof maps);
    for (char *line = maps; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : line)
        if (sscanf(line, "%lx-%lx", &begin, &end) == 2 && begin <= at && at < end) {
            char *stop = strchr(line, '\n'), *found = strstr(line, name);
            return found && found < stop;
        }
    return false;
}

#endif
