/* The first child has it from its image, which has no file beneath it that its own child could see again. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("MADV_DONTNEED of a private page of a file, in a child of a child");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4096) == 0 && pwrite(fd, "first", 5, 0) == 5);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    check(area != MAP_FAILED);
    memcpy(area, "OTHER", 5);
    prepare_here();
    prepare_here();
    check(memcmp(area, "OTHER", 5) == 0);
    check(madvise(area, 4096, MADV_DONTNEED) == 0);
    check(memcmp(area, "first", 5) == 0);
    return carried();
}
