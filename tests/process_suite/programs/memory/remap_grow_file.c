/* What it grows by is zeros in a child, and not more of the file. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) of a private file to a larger size");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "fourth", 6, 3 << 12) == 6);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    check(area != MAP_FAILED);
    area[0] = 5;
    prepare_here();
    area = mremap(area, 4096, 4 << 12, MREMAP_MAYMOVE);
    check(area != MAP_FAILED && area[0] == 5 && area[1 << 12] == 0);
    check(memcmp(area + (3 << 12), "fourth", 6) == 0);
    return carried();
}
