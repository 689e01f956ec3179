/* No page of it was written, and the child's host has no such file: the bytes that follow in the child's image show. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) of a private file that nobody has written to, to a larger size");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5);
    check(pwrite(fd, "fourth", 6, 3 << 12) == 6);
    char *area = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    check(area != MAP_FAILED && memcmp(area, "first", 5) == 0);
    prepare_here();
    check(memcmp(area, "first", 5) == 0);
    area = mremap(area, 4096, 4 << 12, MREMAP_MAYMOVE);
    check(area != MAP_FAILED && memcmp(area, "first", 5) == 0);
    check(memcmp(area + (3 << 12), "fourth", 6) == 0);
    return carried();
}
