/* Parts of which some are locked are several mappings to the kernel, which grows and moves one. In a child what was one
 * mapping may be several, and which of these the kernel would tell apart nobody knows: all that have the same rights go. */
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
    return carried();
}
