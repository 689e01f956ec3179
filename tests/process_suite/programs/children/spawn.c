#include "suite.h"

#include <spawn.h>

extern char **environ;

int main(void)
{
    int status = 0;
    pid_t pid = 0;
    char *const arguments[] = {"sh", "-c", "exit 6", NULL};
    about("posix_spawn(3)");
    prepare_here();
    check(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ) == 0);
    check(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 6);
    return carried();
}
