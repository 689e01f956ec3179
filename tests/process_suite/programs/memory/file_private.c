#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("a file mapped privately, and pages of it that were written");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5 &&
        pwrite(fd, "third", 5, 2 << 12) == 5);
    char *area = mmap(NULL, 4 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    memcpy(area + 4096, "second", 6);
    prepare_here();
    check(memcmp(area, "first", 5) == 0 && memcmp(area + 4096, "second", 6) == 0);
    check(memcmp(area + (2 << 12), "third", 5) == 0 && area[3 << 12] == 0);
    area[0] = 'F';
    check(memcmp(area, "First", 5) == 0);
    return carried();
}
