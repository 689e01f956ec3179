#include "suite.h"

#include <signal.h>

int main(void)
{
    about("a pidfd of another process");
    pid_t pid = fork();
    if (pid == 0) {
        close_range(0, 2, 0);
        sleep_ms(3000);
        _exit(0);
    }
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    check(fd >= 0);
    prepare_here_with_files();
    if (suite.way != PLAIN) {
        check(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == -1 && errno == EBADF);
        return is_new();
    }
    check(syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0 &&
        waitpid(pid, NULL, 0) == pid);
    return carried();
}
