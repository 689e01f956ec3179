/* No host has it. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("a deleted file mapped shared, where that is refused");
    int fd = open(in_folder("gone"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4096) == 0);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(area != MAP_FAILED && unlink(in_folder("gone")) == 0);
    close(fd);
    prepare_here_refusing(MITOSIS_LOSS_SHARED_FILES);
    check(area[0] == 0);
    return carried();
}
