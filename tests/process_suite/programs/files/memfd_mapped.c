/* The memory and the file are one thing. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    char byte = 0;
    about("an memfd that is open and mapped: one and the same");
    int fd = memfd_create("suite", 0);
    check(ftruncate(fd, 4096) == 0);
    volatile char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    area[0] = 5;
    prepare_here_with_files();
    check(area[0] == 5 && pread(fd, &byte, 1, 0) == 1 && byte == 5);
    area[0] = 6;
    bool is_one = pread(fd, &byte, 1, 0) == 1 && byte == 6;
    if (suite.way != PLAIN && !is_one)
        return is_new();
    check(is_one);
    return carried();
}
