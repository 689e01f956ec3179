/* A child takes no port that nobody gave it; its socket goes on listening, where nobody knows. */
#include "suite.h"

#include <netinet/in.h>
#include <sys/socket.h>

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int listens = 0;
    about("a socket that listens (TCP), without being told where");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    check(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 5) == 0);
    check(getsockname(fd, (struct sockaddr *)&at, &length) == 0);
    prepare_here_with_files();
    length = sizeof listens;
    check(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens == 1);
    check(accept(fd, NULL, NULL) == -1 && errno == EAGAIN);
    int caller = socket(AF_INET, SOCK_STREAM, 0);
    int connected = connect(caller, (struct sockaddr *)&at, sizeof at);
    if (suite.way != PLAIN) {
        check(connected == -1 && errno == ECONNREFUSED);
        return is_new();
    }
    check(connected == 0);
    return carried();
}
