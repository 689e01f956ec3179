/* A page without access between two that have it. */
#include "guards.h"

#include <sys/mman.h>

int main(void)
{
    about("guard pages (PROT_NONE)");
    volatile char *area = mmap(NULL, 3 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
        -1, 0);
    area[0] = area[2 << 12] = 5;
    check(mprotect((void *)(area + 4096), 4096, PROT_NONE) == 0);
    expect_faults();
    prepare_here();
    check(area[0] == 5 && area[2 << 12] == 5);
    check_guarded(area + 4096);
    return carried();
}
