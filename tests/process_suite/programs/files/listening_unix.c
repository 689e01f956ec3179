#include "suite.h"

#include <sys/socket.h>
#include <sys/un.h>

int main(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    about("a socket that listens (unix), without being told where");
    strncpy(at.sun_path, in_folder("s"), sizeof at.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    check(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 5) == 0);
    prepare_here_with_files();
    check(accept(fd, NULL, NULL) == -1 && errno == EAGAIN);
    int caller = socket(AF_UNIX, SOCK_STREAM, 0);
    int connected = connect(caller, (struct sockaddr *)&at, sizeof at);
    if (suite.way != PLAIN) {
        check(connected == -1 && errno == ENOENT);
        return is_new();
    }
    check(connected == 0);
    return carried();
}
