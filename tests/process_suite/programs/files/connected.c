/* A connection to another process: the child sees that its peer has gone. */
#include "suite.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    char text[8];
    about("a connected TCP socket");
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 5) == 0);
    check(getsockname(listener, (struct sockaddr *)&at, &length) == 0);
    check(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    int accepted = accept(listener, NULL, NULL);
    signal(SIGPIPE, SIG_IGN);
    prepare_here_with_files();
    if (suite.way != PLAIN) {
        check(read(fd, text, 8) == 0 && write(fd, "x", 1) == -1 && errno == EPIPE);
        return is_new();
    }
    check(write(accepted, "y", 1) == 1 && read(fd, text, 8) == 1);
    return carried();
}
