/* The message names it, and its number. */
#include "suite.h"

int main(void)
{
    about("a device of the parent's host, where that is refused");
    int fd = open("/dev/fuse", O_RDWR);
    check(fd == 3);
    prepare_here_refusing(MITOSIS_LOSS_DEVICES);
    check(fcntl(fd, F_GETFL) != -1);
    return carried();
}
