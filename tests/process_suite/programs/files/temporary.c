#include "suite.h"

int main(void)
{
    char text[16] = {0};
    about("a file that never had a name (O_TMPFILE)");
    int fd = open(in_folder(""), O_TMPFILE | O_RDWR, 0600);
    check(fd >= 0 && write(fd, "its bytes", 9) == 9);
    prepare_here_with_files();
    check(lseek(fd, 0, SEEK_CUR) == 9 && pread(fd, text, 15, 0) == 9 &&
        strcmp(text, "its bytes") == 0);
    return carried();
}
