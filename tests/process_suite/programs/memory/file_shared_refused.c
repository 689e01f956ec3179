/* Where the host has the same there is a child; here it has not. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("a file mapped shared, which the child's host has not, where that is refused");
    int fd = open(in_folder("kept"), O_RDWR);
    char *kept = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    fd = open(in_folder("missing"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4096) == 0);
    char *missing = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    check(kept != MAP_FAILED && missing != MAP_FAILED);
    prepare_here_refusing(MITOSIS_LOSS_SHARED_FILES);
    check(missing[0] == 0);
    return carried();
}
