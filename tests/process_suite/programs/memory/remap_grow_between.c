/* What was mapped lies in the child's object where it lay; nobody has told what is between. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) of a memfd over a part that was not mapped, before one that was");
    int fd = memfd_create("suite", MFD_CLOEXEC);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "second", 6, 1 << 12) == 6);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *last = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 3 << 12);
    check(area != MAP_FAILED && last != MAP_FAILED);
    close(fd);
    area[0] = last[0] = 5;
    prepare_here();
    area = mremap(area, 4096, 4 << 12, MREMAP_MAYMOVE);
    check(area != MAP_FAILED && area[0] == 5 && area[3 << 12] == 5);
    check(memcmp(area + (1 << 12), "second", 6) == 0);
    return carried();
}
