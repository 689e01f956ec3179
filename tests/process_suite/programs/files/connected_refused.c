/* The message names it, its addresses, and who has the other end. */
#include "suite.h"

#include <sys/prctl.h>
#include <sys/socket.h>

int main(void)
{
    int ends[2];
    char byte;
    about("a connection to another process, where that is refused");
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && ends[0] == 3);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, "the peer");
        close_range(0, 3, 0);
        check(write(ends[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    close(ends[1]);
    check(read(ends[0], &byte, 1) == 1);
    prepare_here_refusing(MITOSIS_LOSS_CONNECTIONS);
    check(fcntl(ends[0], F_GETFL) != -1);
    kill(pid, SIGKILL);
    return carried();
}
