/* Of Linux 6.15: before, only private memory has such guards. */
#include "guards.h"

#include <sys/mman.h>

int main(void)
{
    about("guard pages of MADV_GUARD_INSTALL in shared memory (from Linux 6.15 on)");
    volatile char *area = mmap(NULL, 3 << 12, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
        -1, 0);
    area[0] = area[2 << 12] = 5;
    if (madvise((void *)(area + 4096), 4096, 102) != 0)
        return absent("MADV_GUARD_INSTALL in shared memory");
    expect_faults();
    prepare_here();
    check(area[0] == 5 && area[2 << 12] == 5);
    check_guarded(area + 4096);
    return carried();
}
