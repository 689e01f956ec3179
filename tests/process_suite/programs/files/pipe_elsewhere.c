/* The other end is another process's. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    int in[2], out[2], own[2];
    char text[16];
    about("a pipe whose other end another process has");
    check(pipe(in) == 0 && pipe(out) == 0 && pipe(own) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(own[1]);
        close(in[0]);
        close(out[1]);
        /* Until its parent has gone. */
        check(read(own[0], text, 1) == 0);
        _exit(0);
    }
    close(in[1]);
    close(out[0]);
    signal(SIGPIPE, SIG_IGN);
    prepare_here_with_files();
    if (suite.way != PLAIN) {
        check(read(in[0], text, 15) == 0);
        check(write(out[1], "x", 1) == -1 && errno == EPIPE);
        return is_new();
    }
    check(write(out[1], "x", 1) == 1);
    close(own[1]);
    return carried();
}
