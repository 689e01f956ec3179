/* What an epoll watches lives on by a duplicate, when the number that it was registered by is closed, or another
   file's. */
#include "suite.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

static bool is_told(int epoll, int into, uint64_t data)
{
    struct epoll_event got[4];
    return write(into, "x", 1) == 1 && epoll_wait(epoll, got, 4, 1000) == 1 && got[0].data.u64 == data;
}

int main(void)
{
    int closed[2], reused[2], epolls[2];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7};
    about("an epoll that watches by a number that was closed, or is another file's");
    epolls[0] = epoll_create1(0), epolls[1] = epoll_create1(EPOLL_CLOEXEC);
    check(pipe(reused) == 0 && epoll_ctl(epolls[1], EPOLL_CTL_ADD, reused[0], &event) == 0);
    int kept = fcntl(reused[0], F_DUPFD, 20);
    close(reused[0]);
    int other = eventfd(3, EFD_CLOEXEC);
    check(other == reused[0] && kept >= 20);
    event.data.u64 = 8;
    check(epoll_ctl(epolls[1], EPOLL_CTL_ADD, other, &event) == 0);
    event.data.u64 = 9;
    check(pipe(closed) == 0 && epoll_ctl(epolls[0], EPOLL_CTL_ADD, closed[0], &event) == 0);
    check(fcntl(closed[0], F_DUPFD, 30) >= 30 && close(closed[0]) == 0);
    prepare_here_with_files();
    check(is_told(epolls[0], closed[1], 9));
    struct epoll_event got[4];
    uint64_t count;
    check(epoll_wait(epolls[1], got, 4, 1000) == 1 && got[0].data.u64 == 8);
    check(read(other, &count, sizeof count) == sizeof count && count == 3);
    check(is_told(epolls[1], reused[1], 7));
    check(fcntl(other, F_GETFD) == FD_CLOEXEC && fcntl(closed[0], F_GETFD) == -1 && errno == EBADF);
    return carried();
}
