/* SIGCHLD ignored: children are reaped by the kernel. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    about("children that nobody waits for (SIGCHLD ignored)");
    signal(SIGCHLD, SIG_IGN);
    prepare_here();
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    check(waitpid(pid, NULL, 0) == -1 && errno == ECHILD);
    return carried();
}
