/* 0, 1 and 2 are the resumer's, whatever they were. */
#include "suite.h"

#include <sys/stat.h>

int main(void)
{
    struct stat before, now;
    about("standard input, output and error");
    check(fstat(1, &before) == 0);
    prepare_here_with_files();
    check(fstat(1, &now) == 0 && fcntl(0, F_GETFD) == 0 && fcntl(2, F_GETFD) == 0);
    if (suite.way != PLAIN) {
        check(before.st_ino != now.st_ino || before.st_dev != now.st_dev);
        return is_new();
    }
    check(before.st_ino == now.st_ino);
    return carried();
}
