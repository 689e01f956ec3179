/* SA_RESTART: a read(2) goes on after a handler; without it, it ends with EINTR. */
#include "suite.h"

#include <signal.h>
#include <sys/time.h>

static int ends[2];
static volatile sig_atomic_t count;

static void handler(int signal)
{
    (void)signal;
    if (++count == 2)
        check(write(ends[1], "x", 1) == 1);
}

static ssize_t interrupted(int flags)
{
    char byte;
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct itimerval soon = {.it_value = {0, 10000}, .it_interval = {0, 10000}}, never = {0};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    ssize_t got = read(ends[0], &byte, 1);
    int number = errno;
    setitimer(ITIMER_REAL, &never, NULL);
    errno = number;
    return got;
}

int main(void)
{
    about("restarted and interrupted system calls");
    prepare_here();
    check(pipe(ends) == 0);
    check(interrupted(SA_RESTART) == 1 && count >= 2);
    count = 10;
    check(interrupted(0) == -1 && errno == EINTR);
    return carried();
}
