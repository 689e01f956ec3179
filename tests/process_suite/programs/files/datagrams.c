#include "suite.h"

#include <netinet/in.h>
#include <sys/socket.h>

int main(void)
{
    int kind = 0, once = 1;
    socklen_t length = sizeof kind;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    about("an unconnected UDP socket");
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    check(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &once, sizeof once) == 0);
    prepare_here_with_files();
    check(getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length) == 0 && kind == SOCK_DGRAM);
    int other = socket(AF_INET, SOCK_DGRAM, 0);
    char text[8] = {0};
    check(bind(other, (struct sockaddr *)&at, sizeof at) == 0);
    length = sizeof at;
    check(getsockname(other, (struct sockaddr *)&at, &length) == 0);
    check(sendto(fd, "hello", 5, 0, (struct sockaddr *)&at, sizeof at) == 5);
    check(recv(other, text, 7, 0) == 5 && strcmp(text, "hello") == 0);
    return carried();
}
