#include "suite.h"

#include <sys/stat.h>

int main(void)
{
    struct stat file;
    char byte;
    about("a file of O_PATH");
    int fd = open(in_folder("kept"), O_PATH);
    check(fd >= 0);
    prepare_here_with_files();
    check(fstat(fd, &file) == 0 && file.st_size == 16);
    check(read(fd, &byte, 1) == -1 && errno == EBADF);
    check(fcntl(fd, F_GETFL) & O_PATH);
    return carried();
}
