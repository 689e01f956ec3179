/* A hook connects anew, and the rest of the program finds that connection at the old number. */
#include "suite.h"

#include <netinet/in.h>
#include <sys/socket.h>

static int server = -1;

/* Connected to a server of this process's host, which it makes. */
static int connected(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0), listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&at, length) != 0 || listen(listener, 1) != 0)
        return -1;
    getsockname(listener, (struct sockaddr *)&at, &length);
    if (connect(fd, (struct sockaddr *)&at, length) != 0)
        return -1;
    server = accept(listener, NULL, NULL);
    close(listener);
    return fd;
}

static int connect_again(void *data)
{
    int *number = data, fd;
    if (lost_as(*number) != MITOSIS_LOSS_CONNECTIONS || (fd = connected()) < 0)
        return 1;
    return dup2(fd, *number) == *number && close(fd) == 0 ? 0 : 1;
}

int main(void)
{
    static int number;
    char text[4];
    about("a connection that a hook makes again");
    number = connected();
    check(number >= 0 && mitosis_after_resume(connect_again, &number, 0) == MITOSIS_OK);
    prepare_here_with_files();
    check(write(number, "new", 4) == 4 && read(server, text, 4) == 4 && !strcmp(text, "new"));
    return carried();
}
