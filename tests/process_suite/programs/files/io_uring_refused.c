/* Without a word it is refused: event loops keep one that they cannot do without. */
#include "uring.h"

int main(void)
{
    struct uring ring = {0};
    about("an io_uring of which nothing is said");
    if (!uring_open(&ring))
        return absent("io_uring");
    check(ring.fd == 3);
    prepare_here_with_files();
    check(uring_works(&ring, 1));
    return carried();
}
