/* Children of before the fork are the parent's. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    int status = 0;
    about("children of before the fork");
    pid_t pid = fork();
    if (pid == 0)
        _exit(5);
    siginfo_t info;
    check(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    prepare_here();
    if (suite.way != PLAIN) {
        check(waitpid(pid, &status, 0) == -1 && errno == ECHILD);
        return is_new();
    }
    check(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 5);
    return carried();
}
