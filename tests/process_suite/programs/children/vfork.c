#include "suite.h"

int main(void)
{
    int status = 0;
    about("vfork(2)");
    prepare_here();
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/true", "true", NULL);
        _exit(127);
    }
    check(waitpid(pid, &status, 0) == pid && status == 0);
    return carried();
}
