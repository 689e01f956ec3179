#include "suite.h"

#include <sys/epoll.h>

int main(void)
{
    int ends[2];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdef}, got[4];
    about("an epoll with what it watches");
    int fd = epoll_create1(0);
    check(pipe(ends) == 0 && epoll_ctl(fd, EPOLL_CTL_ADD, ends[0], &event) == 0);
    event.data.u64 = 2;
    event.events = EPOLLOUT | EPOLLONESHOT;
    check(epoll_ctl(fd, EPOLL_CTL_ADD, ends[1], &event) == 0);
    prepare_here_with_files();
    check(epoll_wait(fd, got, 4, 0) == 1 && got[0].data.u64 == 2 && got[0].events == EPOLLOUT);
    check(epoll_wait(fd, got, 4, 0) == 0 && write(ends[1], "x", 1) == 1);
    check(epoll_wait(fd, got, 4, 1000) == 1 && got[0].data.u64 == 0x1234567890abcdef);
    return carried();
}
