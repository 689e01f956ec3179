#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("an memfd mapped shared and privately");
    int fd = memfd_create("suite", MFD_CLOEXEC);
    check(ftruncate(fd, 8192) == 0 && pwrite(fd, "first", 5, 0) == 5);
    char *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *own = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    memcpy(shared + 4096, "second", 6);
    own[0] = 'F';
    prepare_here();
    check(memcmp(shared, "first", 5) == 0 && memcmp(shared + 4096, "second", 6) == 0);
    check(memcmp(own, "First", 5) == 0 && memcmp(own + 4096, "second", 6) == 0);
    shared[1] = 'I';
    check(own[1] == 'i' && shared[1] == 'I');
    return carried();
}
