/* SIGSTOP and SIGCONT of a process that the child has forked; WUNTRACED tells. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    int status = 0;
    about("stopping and going on of own children");
    prepare_here();
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(5);
    }
    check(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    check(kill(pid, SIGCONT) == 0);
    check(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 5);
    return carried();
}
