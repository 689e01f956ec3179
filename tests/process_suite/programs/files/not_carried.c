/* Without being asked to carry them: EBADF in fork mode; a whole process has them in any case. */
#include "suite.h"

int main(void)
{
    about("open files that nobody asked to carry");
    int fd = open(in_folder("kept"), O_RDONLY);
    check(fd > 2);
    prepare_here();
    if (suite.way == FORK) {
        check(is_closed(fd));
        return is_new();
    }
    check(lseek(fd, 0, SEEK_END) == 16);
    return carried();
}
