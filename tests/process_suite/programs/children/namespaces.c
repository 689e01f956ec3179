/* unshare(2) and clone(2) with namespaces of its own. */
#include "suite.h"

#include <sched.h>

int main(void)
{
    char name[65];
    int status = 0;
    about("namespaces of the child's own");
    prepare_here();
    pid_t pid = fork();
    if (pid == 0) {
        check(unshare(CLONE_NEWUTS | CLONE_NEWIPC) == 0 && sethostname("own", 3) == 0);
        check(gethostname(name, sizeof name) == 0 && strcmp(name, "own") == 0);
        _exit(0);
    }
    check(waitpid(pid, &status, 0) == pid && status == 0);
    check(gethostname(name, sizeof name) == 0 && strcmp(name, "own") != 0);
    return carried();
}
