/* A hook makes a new one at the old number; where its rings are mapped the kernel decides. */
#include "uring.h"

static struct uring ring;

static int make_again(void *data)
{
    int number = ring.fd;
    (void)data;
    if (lost_as(number) != MITOSIS_LOSS_IO_URING || !uring_open(&ring))
        return 1;
    if (ring.fd != number) {
        if (dup3(ring.fd, number, O_CLOEXEC) != number)
            return 1;
        close(ring.fd);
        ring.fd = number;
    }
    return 0;
}

int main(void)
{
    about("an io_uring that a hook makes again");
    if (!uring_open(&ring))
        return absent("io_uring");
    check(uring_works(&ring, 1));
    check(mitosis_after_resume(make_again, NULL, 0) == MITOSIS_OK);
    prepare_here_closing(MITOSIS_LOSS_IO_URING);
    check(uring_works(&ring, 2) && uring_works(&ring, 3));
    return carried();
}
