/* A file that the other host has not. */
#include "suite.h"

int main(void)
{
    about("a file that the child's host has not");
    int fd = open(in_folder("alone"), O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && write(fd, "x", 1) == 1);
    prepare_here_with_files();
    if (suite.way != PLAIN) {
        check(is_closed(fd));
        return is_new();
    }
    check(lseek(fd, 0, SEEK_CUR) == 1);
    return carried();
}
