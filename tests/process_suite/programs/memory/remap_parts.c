/* Parts of which some are locked are several mappings to the kernel, which grows and moves one. In a child what was one
 * mapping may be several: all go that have the same rights and are locked alike. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) of memory of which a part is locked is refused");
    char *area = mmap(NULL, 8 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < 8; page++)
        area[page << 12] = (char)(page + 1);
    prepare_here();
    check(mlock(area + (2 << 12), 4096) == 0);
    char *moved = mremap(area, 8 << 12, 16 << 12, MREMAP_MAYMOVE);
    int number = errno;
    /* With its bytes, wherever it is. */
    char *at = moved == MAP_FAILED ? area : moved;
    for (int page = 0; page < 8; page++)
        check(at[page << 12] == page + 1);
    if (moved != MAP_FAILED)
        for (int page = 8; page < 16; page++)
            check(at[page << 12] == 0 && at[(page << 12) + 4095] == 0);
    check(moved == MAP_FAILED && number == EFAULT);
    /* A part of one kind alone moves; opened, so do all. */
    moved = mremap(area, 2 << 12, 4 << 12, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED && moved[0] == 1 && moved[1 << 12] == 2 && moved[3 << 12] == 0);
    check(munlock(area + (2 << 12), 4096) == 0);
    moved = mremap(area + (2 << 12), 6 << 12, 12 << 12, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED);
    for (int page = 0; page < 6; page++)
        check(moved[page << 12] == page + 3);
    return carried();
}
