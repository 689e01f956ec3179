#include "suite.h"

#include <sys/mman.h>
#include <sys/stat.h>

int main(void)
{
    about("POSIX shared memory (shm_open(3)), mapped");
    const char *name = name_of_its_own();
    int fd = shm_open(name, O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && shm_unlink(name) == 0 && ftruncate(fd, 8192) == 0);
    char *area = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    strcpy(area, "shared");
    prepare_here();
    check(strcmp(area, "shared") == 0);
    area[0] = 'S';
    check(strcmp(area, "Shared") == 0);
    return carried();
}
