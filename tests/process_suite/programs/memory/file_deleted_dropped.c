/* MADV_DONTNEED of a written page of what has no name: a memfd, and a file that was deleted. */
#include "suite.h"

#include <sys/mman.h>

static char *written_over(int fd)
{
    check(fd >= 0 && ftruncate(fd, 2 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5);
    char *area = mmap(NULL, 2 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    check(area != MAP_FAILED);
    memcpy(area, "OTHER", 5);
    close(fd);
    return area;
}

int main(void)
{
    about("MADV_DONTNEED of a private page of a file without a name");
    const char *path = in_folder("deleted");
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    check(unlink(path) == 0);
    char *areas[] = {written_over(fd), written_over(memfd_create("dropped", MFD_CLOEXEC))};
    prepare_here();
    for (int i = 0; i < 2; i++) {
        check(memcmp(areas[i], "OTHER", 5) == 0 && areas[i][4096] == 0);
        check(madvise(areas[i], 2 << 12, MADV_DONTNEED) == 0);
        check(memcmp(areas[i], "first", 5) == 0 && areas[i][4096] == 0);
    }
    return carried();
}
