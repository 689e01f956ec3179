#include "suite.h"

#include <linux/netlink.h>
#include <sys/socket.h>

int main(void)
{
    struct sockaddr_nl at = {.nl_family = AF_NETLINK};
    about("a netlink socket");
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    check(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    prepare_here_with_files();
    if (suite.way != PLAIN) {
        check(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
        return is_new();
    }
    check(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    return carried();
}
