/* Its number is closed in a child, its memory can no longer be touched, and the child is told. */
#include "uring.h"

#include <setjmp.h>

static sigjmp_buf back;

static void on_fault(int signal)
{
    siglongjmp(back, signal);
}

int main(void)
{
    struct uring ring = {0};
    about("an io_uring that is to be closed");
    if (!uring_open(&ring))
        return absent("io_uring");
    check(uring_works(&ring, 1));
    prepare_here_closing(MITOSIS_LOSS_IO_URING);
    if (suite.way == PLAIN) {
        check(uring_works(&ring, 2));
        return carried();
    }
    check(is_closed(ring.fd) && lost_as(ring.fd) == MITOSIS_LOSS_IO_URING);
    check(syscall(SYS_io_uring_enter, ring.fd, 0, 0, 0, NULL, 0) == -1 && errno == EBADF);
    signal(SIGSEGV, on_fault);
    if (sigsetjmp(back, 1) == 0) {
        check(*(volatile char *)ring.rings == 0);
        check(!"the parent's rings can be read");
    }
    return is_new();
}
