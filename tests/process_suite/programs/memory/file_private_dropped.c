/* MADV_DONTNEED of a page of a file that was written: the file's bytes are there again. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("MADV_DONTNEED of a private page of a file");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 2 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5);
    char *area = mmap(NULL, 2 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    memcpy(area, "OTHER", 5);
    prepare_here();
    check(memcmp(area, "OTHER", 5) == 0);
    check(madvise(area, 4096, MADV_DONTNEED) == 0);
    check(memcmp(area, "first", 5) == 0);
    return carried();
}
