#include "suite.h"

int main(void)
{
    char text[16] = {0};
    int ends[2];
    about("a pipe, and what lies in it");
    check(pipe2(ends, O_NONBLOCK) == 0 && write(ends[1], "in it", 5) == 5);
    check(fcntl(ends[1], F_SETPIPE_SZ, 1 << 17) == 1 << 17);
    prepare_here_with_files();
    check(fcntl(ends[1], F_GETPIPE_SZ) == 1 << 17);
    check(read(ends[0], text, 15) == 5 && strcmp(text, "in it") == 0);
    check(read(ends[0], text, 15) == -1 && errno == EAGAIN);
    check(write(ends[1], "more", 4) == 4 && read(ends[0], text, 15) == 4);
    close(ends[1]);
    check(read(ends[0], text, 15) == 0);
    return carried();
}
