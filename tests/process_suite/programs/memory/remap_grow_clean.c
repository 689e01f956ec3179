/* No page of it was written, and the child's host has no such file: behind what was mapped the image has something else, so
 * that it does not grow. */
#include "suite.h"

#include <sys/mman.h>

static void *grown(void *area)
{
    return mremap(area, 4096, 4 << 12, MREMAP_MAYMOVE);
}

int main(void)
{
    about("mremap(2) of a private file that nobody has written to, to a larger size");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5);
    check(pwrite(fd, "fourth", 6, 3 << 12) == 6);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *kept = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, open(in_folder("kept"), O_RDONLY), 0);
    check(area != MAP_FAILED && kept != MAP_FAILED && memcmp(area, "first", 5) == 0);
    prepare_here();
    check(memcmp(area, "first", 5) == 0);
    /* What its host has grows with its file. */
    check(truncate(in_folder("kept"), 4 << 12) == 0);
    kept = grown(kept);
    check(kept != MAP_FAILED && memcmp(kept, "the file", 8) == 0 && kept[3 << 12] == 0);
    if (suite.way == PLAIN) {
        area = grown(area);
        check(area != MAP_FAILED && memcmp(area + (3 << 12), "fourth", 6) == 0);
        return carried();
    }
    check(grown(area) == MAP_FAILED && errno == ENOMEM && memcmp(area, "first", 5) == 0);
    /* It goes anywhere, and does not grow there either. Written to and discarded, it is the file's. */
    char *room = mmap(NULL, 8 << 12, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area = mremap(area, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    check(area == room && memcmp(area, "first", 5) == 0);
    check(grown(area) == MAP_FAILED && errno == ENOMEM);
    area[0] = 5;
    check(madvise(area, 4096, MADV_DONTNEED) == 0 && memcmp(area, "first", 5) == 0);
    return is_new();
}
