/* RLIMIT_FSIZE acts: SIGXFSZ, here ignored, and EFBIG. */
#include "suite.h"

#include <signal.h>
#include <sys/resource.h>

int main(void)
{
    struct rlimit limit = {.rlim_cur = 10, .rlim_max = RLIM_INFINITY};
    about("the limit of a file's size acts");
    check(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = 10;
    signal(SIGXFSZ, SIG_IGN);
    check(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    prepare_here();
    int fd = open(in_folder("made"), O_CREAT | O_RDWR, 0600);
    check(fd >= 0 && write(fd, "0123456789abcdef", 16) == 10);
    check(write(fd, "x", 1) == -1 && errno == EFBIG);
    return carried();
}
