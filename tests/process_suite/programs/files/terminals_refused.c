#include "suite.h"

#include <pty.h>

int main(void)
{
    int master = -1, slave = -1;
    char text[16] = {0};
    about("a pseudo terminal of another process, where that is refused");
    check(openpty(&master, &slave, NULL, NULL, NULL) == 0 && master == 3);
    pid_t pid = fork();
    if (pid == 0) {
        close_range(0, 3, 0);
        for (;;)
            pause();
    }
    close(slave);
    if (suite.way != PLAIN) {
        /* Nobody is left behind by a refusal. */
        kill(pid, SIGKILL);
        check(waitpid(pid, NULL, 0) == pid);
    }
    prepare_here_refusing(MITOSIS_LOSS_TERMINALS);
    check(write(master, "in", 2) == 2 && read(master, text, 15) == 2);
    kill(pid, SIGKILL);
    return carried();
}
