#include "suite.h"

int main(void)
{
    int status = 0, number = 5;
    about("fork(2) and wait(2) of its own");
    prepare_here();
    pid_t pid = fork();
    if (pid == 0) {
        number++;
        _exit(number + (getppid() > 0));
    }
    check(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7 && number == 5);
    check(waitpid(-1, &status, 0) == -1 && errno == ECHILD);
    return carried();
}
