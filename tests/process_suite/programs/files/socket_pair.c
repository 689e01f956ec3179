#include "suite.h"

#include <sys/socket.h>

int main(void)
{
    char text[16] = {0};
    int ends[2];
    about("a pair of unix sockets, and what lies in them");
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    check(write(ends[0], "to second", 9) == 9 && write(ends[1], "to first", 8) == 8);
    prepare_here_with_files();
    check(read(ends[1], text, 15) == 9 && strcmp(text, "to second") == 0);
    check(read(ends[0], text, 15) == 8 && write(ends[0], "x", 1) == 1 &&
        read(ends[1], text, 15) == 1);
    close(ends[0]);
    check(read(ends[1], text, 15) == 0);
    return carried();
}
