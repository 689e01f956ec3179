#include "suite.h"

#include <signal.h>

static volatile sig_atomic_t ended;

static void handler(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    ended = info->si_pid;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    int status = 0;
    about("SIGCHLD of own children");
    sigaction(SIGCHLD, &action, NULL);
    prepare_here();
    check(ended == 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    check(waitpid(pid, &status, 0) == pid);
    for (int tries = 0; ended == 0 && tries < 1000; tries++)
        sleep_ms(1);
    check(ended == pid);
    return carried();
}
