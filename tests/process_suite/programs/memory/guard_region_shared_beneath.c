/* Nothing else shows the bytes beneath the guard. */
#include "guards.h"

#include <sys/mman.h>

int main(void)
{
    about("bytes of shared memory beneath a guard page of MADV_GUARD_INSTALL");
    volatile char *area = mmap(NULL, 3 << 12, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
        -1, 0);
    area[0] = area[1 << 12] = area[2 << 12] = 5;
    if (madvise((void *)(area + 4096), 4096, 102) != 0)
        return absent("MADV_GUARD_INSTALL in shared memory");
    prepare_here();
    check(madvise((void *)(area + 4096), 4096, 103) == 0);
    check(area[0] == 5 && area[1 << 12] == 5 && area[2 << 12] == 5);
    return carried();
}
