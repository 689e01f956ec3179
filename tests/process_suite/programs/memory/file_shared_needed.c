#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("a file mapped shared, which the child's host has, too, where another is refused");
    int fd = open(in_folder("kept"), O_RDWR);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(area != MAP_FAILED);
    prepare_here_refusing(MITOSIS_LOSS_SHARED_FILES);
    check(memcmp(area, "the file", 8) == 0);
    memcpy(area, "THE", 3);
    char byte;
    check(pread(fd, &byte, 1, 0) == 1 && byte == 'T');
    return carried();
}
