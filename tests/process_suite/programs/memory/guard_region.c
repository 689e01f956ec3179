/* MADV_GUARD_INSTALL, of Linux 6.13: guards that are no mapping of their own. */
#include "guards.h"

#include <sys/mman.h>

int main(void)
{
    about("guard pages of MADV_GUARD_INSTALL");
    volatile char *area = mmap(NULL, 3 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
        -1, 0);
    area[0] = area[4096] = area[2 << 12] = 5;
    if (madvise((void *)(area + 4096), 4096, 102) != 0)
        return absent("MADV_GUARD_INSTALL");
    expect_faults();
    prepare_here();
    check(area[0] == 5 && area[2 << 12] == 5);
    check_guarded(area + 4096);
    return carried();
}
