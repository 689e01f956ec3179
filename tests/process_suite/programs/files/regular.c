#include "suite.h"

int main(void)
{
    char text[32] = {0};
    about("a regular file: path, offset, mode");
    int fd = open(in_folder("kept"), O_RDWR);
    check(fd >= 0 && lseek(fd, 4, SEEK_SET) == 4);
    prepare_here_with_files();
    check(lseek(fd, 0, SEEK_CUR) == 4 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR);
    check(read(fd, text, 31) == 12 && strcmp(text, "file's text\n") == 0);
    return carried();
}
