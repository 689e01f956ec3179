#include "suite.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

int main(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    about("a userfaultfd that watches nothing");
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    check(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0);
    prepare_here_with_files();
    if (suite.way == PLAIN) {
        check(fcntl(fd, F_GETFD) != -1);
        return carried();
    }
    mitosis_loss loss = {.size = sizeof loss};
    bool is_told = false;
    for (size_t at = 0; mitosis_lost(at, &loss) == MITOSIS_OK; at++)
        is_told |= loss.kind == MITOSIS_LOSS_DEVICES && loss.fd == fd;
    check(is_told && is_closed(fd));
    return is_new();
}
