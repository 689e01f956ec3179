/* A fault that nobody handles, in a fork of the child: the status tells of it, and a core is made
 * where asked. */
#include "suite.h"

#include <signal.h>
#include <sys/resource.h>

int main(void)
{
    int status = 0;
    about("ends by a fault: status, and no core where none is wanted");
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGSEGV, SIG_DFL);
    prepare_here();
    pid_t pid = fork();
    if (pid == 0) {
        *(volatile int *)8 = 1;
        _exit(0);
    }
    check(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    check(!WCOREDUMP(status));
    return carried();
}
