#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    char text[16] = {0};
    about("an memfd with its seals");
    int fd = memfd_create("suite", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    check(write(fd, "its bytes", 9) == 9 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
    prepare_here_with_files();
    check(fcntl(fd, F_GET_SEALS) == (F_SEAL_GROW | F_SEAL_SHRINK) &&
        fcntl(fd, F_GETFD) == FD_CLOEXEC);
    check(lseek(fd, 0, SEEK_CUR) == 9 && pread(fd, text, 15, 0) == 9 &&
        strcmp(text, "its bytes") == 0);
    check(ftruncate(fd, 100) == -1 && errno == EPERM);
    return carried();
}
