/* The number that was watched is another file's now: what is watched lives on by its duplicate. */
#include "suite.h"

#include <sys/epoll.h>

int main(void)
{
    int ends[2];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7}, got[4];
    about("an epoll that watches by a number that was closed");
    int fd = epoll_create1(0);
    check(pipe(ends) == 0 && epoll_ctl(fd, EPOLL_CTL_ADD, ends[0], &event) == 0);
    int kept = dup(ends[0]);
    close(ends[0]);
    prepare_here_with_files();
    check(write(ends[1], "x", 1) == 1 && kept >= 0);
    check(epoll_wait(fd, got, 4, 1000) == 1 && got[0].data.u64 == 7);
    return carried();
}
