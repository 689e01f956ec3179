#include "suite.h"

int main(void)
{
    char text[16] = {0};
    about("a deleted file");
    int fd = open(in_folder("gone"), O_RDWR | O_CREAT, 0600);
    check(write(fd, "its bytes", 9) == 9 && unlink(in_folder("gone")) == 0 &&
        lseek(fd, 4, SEEK_SET) == 4);
    prepare_here_with_files();
    check(read(fd, text, 15) == 5 && strcmp(text, "bytes") == 0);
    check(write(fd, " and more", 9) == 9 && lseek(fd, 0, SEEK_END) == 18);
    return carried();
}
