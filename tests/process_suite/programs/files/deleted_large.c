/* More than 256 KiB: EBADF. */
#include "suite.h"

int main(void)
{
    static char bytes[400000];
    about("a deleted file of more than 256 KiB");
    memset(bytes, 5, sizeof bytes);
    int fd = open(in_folder("gone"), O_RDWR | O_CREAT, 0600);
    check(write(fd, bytes, sizeof bytes) == sizeof bytes && unlink(in_folder("gone")) == 0);
    prepare_here_with_files();
    if (suite.way != PLAIN) {
        check(is_closed(fd));
        return is_new();
    }
    check(lseek(fd, 0, SEEK_END) == sizeof bytes);
    return carried();
}
