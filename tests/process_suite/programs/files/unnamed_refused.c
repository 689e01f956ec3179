#include "suite.h"

int main(void)
{
    static char bytes[400000];
    about("a deleted file of more than 256 KiB, where that is refused");
    memset(bytes, 5, sizeof bytes);
    int fd = open(in_folder("gone"), O_RDWR | O_CREAT, 0600);
    check(fd == 3 && write(fd, bytes, sizeof bytes) == sizeof bytes);
    check(unlink(in_folder("gone")) == 0);
    prepare_here_refusing(MITOSIS_LOSS_UNNAMED);
    check(lseek(fd, 0, SEEK_END) == sizeof bytes);
    return carried();
}
