/* A signal to a process group of the child's making. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    int status = 0;
    about("process groups of own children");
    prepare_here();
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        for (;;)
            pause();
    }
    setpgid(pid, pid);
    check(getpgid(pid) == pid && kill(-pid, SIGTERM) == 0);
    check(waitpid(-pid, &status, 0) == pid && WTERMSIG(status) == SIGTERM);
    return carried();
}
