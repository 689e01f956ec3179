#include "suite.h"

#include <signal.h>

static volatile sig_atomic_t count;
static volatile pid_t sender;

static void handler(int signal, siginfo_t *info, void *context)
{
    count += signal == SIGUSR1 && context != NULL;
    sender = info->si_pid;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    about("a handler of a signal, with its siginfo");
    sigaction(SIGUSR1, &action, NULL);
    prepare_here();
    check(kill(getpid(), SIGUSR1) == 0);
    check(count == 1 && sender == getpid());
    return carried();
}
