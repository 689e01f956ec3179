#include "suite.h"

#include <spawn.h>

/* exec(2) in a fork: the new program has none of what Mitosis laid out. */
int main(void)
{
    int status = 0, ends[2];
    char text[16] = {0};
    about("fork(2) and exec(2)");
    prepare_here();
    check(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 1);
        execl("/bin/sh", "sh", "-c", "echo from sh", NULL);
        _exit(127);
    }
    check(waitpid(pid, &status, 0) == pid && status == 0);
    check(read(ends[0], text, 15) == 8 && strcmp(text, "from sh\n") == 0);
    return carried();
}
