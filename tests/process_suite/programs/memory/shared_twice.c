/* One object, mapped at two places. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("shared memory mapped at two places");
    int fd = memfd_create("twice", 0);
    check(ftruncate(fd, 8192) == 0);
    volatile char *first = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    volatile char *second = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    first[0] = 5;
    prepare_here();
    check(first[0] == 5 && second[0] == 5);
    first[1] = 6;
    check(second[1] == 6);
    return carried();
}
