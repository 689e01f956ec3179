/* The child has of it what was mapped, and behind that is something else: it does not grow. */
#include "suite.h"

#include <sys/mman.h>

static void *grown(void *area)
{
    return mremap(area, 4096, 4 << 12, MREMAP_MAYMOVE);
}

int main(void)
{
    about("mremap(2) of a private file to a larger size");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5);
    check(pwrite(fd, "fourth", 6, 3 << 12) == 6);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *dropped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    check(area != MAP_FAILED && dropped != MAP_FAILED);
    area[0] = dropped[0] = 5;
    prepare_here();
    check(madvise(dropped, 4096, MADV_DONTNEED) == 0 && dropped[0] == 'f');
    if (suite.way == PLAIN) {
        area = grown(area);
        dropped = grown(dropped);
        check(area != MAP_FAILED && area[0] == 5 && area[1 << 12] == 0);
        check(memcmp(area + (3 << 12), "fourth", 6) == 0);
        check(dropped != MAP_FAILED && memcmp(dropped + (3 << 12), "fourth", 6) == 0);
        return carried();
    }
    check(grown(area) == MAP_FAILED && errno == ENOMEM && area[0] == 5);
    check(grown(dropped) == MAP_FAILED && errno == ENOMEM && dropped[0] == 'f');
    /* As long as it is, it goes anywhere. */
    char *moved = mremap(area, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
        mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    check(moved != MAP_FAILED && moved[0] == 5);
    return is_new();
}
