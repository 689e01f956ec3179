/* Two parts of one file side by side, which are two mappings for their offsets, and may be one in a child: pages were
   written in the second, or in the first. */
#include "suite.h"

#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 8 };

static char *beside_each_other(int fd, int first, int second)
{
    char *area = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(area != MAP_FAILED);
    int how = MAP_PRIVATE | MAP_FIXED, access = PROT_READ | PROT_WRITE;
    check(mmap(area, PAGE, access, how, fd, (off_t)first * PAGE) == area);
    check(mmap(area + PAGE, PAGE, access, how, fd, (off_t)second * PAGE) == area + PAGE);
    return area;
}

int main(void)
{
    char page[PAGE];
    about("parts of a file side by side, and pages of one that were written");
    const char *path = in_folder("neighbours");
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && unlink(path) == 0);
    for (int at = 0; at < PAGES; at++) {
        memset(page, 'a' + at, sizeof page);
        check(write(fd, page, sizeof page) == sizeof page);
    }
    char *second = beside_each_other(fd, 0, 5), *first = beside_each_other(fd, 3, 7);
    close(fd);
    memset(second + PAGE, 'X', PAGE);
    memset(first, 'Y', PAGE);
    prepare_here();
    check(second[0] == 'a' && second[PAGE] == 'X' && first[0] == 'Y' && first[PAGE] == 'h');
    memset(second, 'Z', PAGE);
    memset(first + PAGE, 'Z', PAGE);
    check(madvise(second, 2 * PAGE, MADV_DONTNEED) == 0);
    check(second[0] == 'a' && second[PAGE] == 'f' && second[2 * PAGE - 1] == 'f');
    check(madvise(first, 2 * PAGE, MADV_DONTNEED) == 0);
    check(first[0] == 'd' && first[PAGE] == 'h' && first[2 * PAGE - 1] == 'h');
    return carried();
}
