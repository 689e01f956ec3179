/* A subreaper's grandchild: its parent ends, and the child becomes its parent. */
#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    int status = 0, ends[2];
    about("orphans that a subreaper takes");
    prepare_here();
    check(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && pipe(ends) == 0);
    pid_t pid = fork(), orphan = 0;
    if (pid == 0) {
        orphan = fork();
        if (orphan == 0) {
            sleep_ms(20);
            _exit(4);
        }
        _exit(write(ends[1], &orphan, sizeof orphan) != sizeof orphan);
    }
    check(waitpid(pid, &status, 0) == pid && status == 0);
    check(read(ends[0], &orphan, sizeof orphan) == sizeof orphan);
    check(waitpid(orphan, &status, 0) == orphan && WEXITSTATUS(status) == 4);
    return carried();
}
