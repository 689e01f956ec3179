#include "suite.h"

int main(void)
{
    about("a pidfd of the process itself");
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    check(fd >= 0);
    prepare_here_with_files();
    check(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0);
    return carried();
}
