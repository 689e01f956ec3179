/* Its rings are shared with the kernel. */
#include "suite.h"

#include <linux/io_uring.h>

int main(void)
{
    struct io_uring_params parameters = {0};
    about("an io_uring");
    int fd = (int)syscall(SYS_io_uring_setup, 4, &parameters);
    if (fd < 0)
        return absent("io_uring");
    prepare_here_with_files();
    check(fcntl(fd, F_GETFD) >= 0);
    return carried();
}
