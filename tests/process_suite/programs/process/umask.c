#include "suite.h"

#include <sys/stat.h>

int main(void)
{
    about("umask");
    umask(0137);
    prepare_here();
    struct stat file;
    int fd = open(in_folder("made"), O_CREAT | O_RDWR, 0777);
    check(fd >= 0 && fstat(fd, &file) == 0 && (file.st_mode & 0777) == 0640);
    check(umask(0) == 0137);
    return carried();
}
