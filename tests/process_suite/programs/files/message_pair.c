/* Messages with borders, and datagrams. */
#include "suite.h"

#include <sys/socket.h>

int main(void)
{
    char text[16];
    int ends[2];
    about("a pair of unix sockets for messages (SOCK_SEQPACKET)");
    check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    prepare_here_with_files();
    check(write(ends[0], "one", 3) == 3 && write(ends[0], "four", 4) == 4);
    check(read(ends[1], text, 15) == 3 && read(ends[1], text, 15) == 4);
    return carried();
}
