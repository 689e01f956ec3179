/* Parts of which some are locked are several mappings to the kernel, which grows and moves one. In a child what was one
 * mapping may be several, and which of these the kernel would tell apart nobody knows: all that have the same rights go. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) of memory of which a part is locked is refused");
    char *area = mmap(NULL, 8 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 8 << 12);
    prepare_here();
    check(mlock(area + (2 << 12), 4096) == 0);
    char *moved = mremap(area, 8 << 12, 16 << 12, MREMAP_MAYMOVE);
    check(moved == MAP_FAILED && errno == EFAULT && area[7 << 12] == 5);
    return carried();
}
