#include "suite.h"

#include <signal.h>

int main(void)
{
    struct sigaction now;
    about("signals at their default");
    signal(SIGHUP, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    prepare_here();
    check(sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGPIPE);
        _exit(0);
    }
    int status = 0;
    check(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    return carried();
}
