#include "suite.h"

#include <signal.h>
#include <sys/signalfd.h>

int main(void)
{
    struct signalfd_siginfo info;
    sigset_t set;
    about("a signalfd");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    prepare_here_with_files();
    check(read(fd, &info, sizeof info) == -1 && errno == EAGAIN);
    raise(SIGUSR1);
    check(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);
    return carried();
}
