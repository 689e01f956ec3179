#include "suite.h"

#include <pthread.h>

static int in_child;

static void child(void)
{
    in_child++;
}

int main(void)
{
    about("pthread_atfork(3) handlers of the child's own forks");
    check(pthread_atfork(NULL, NULL, child) == 0);
    prepare_here();
    int before = in_child, status = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(in_child == before + 1 ? 0 : 9);
    check(waitpid(pid, &status, 0) == pid && status == 0);
    return carried();
}
