#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("MADV_REMOVE and MADV_DONTNEED of shared memory");
    volatile char *area = mmap(NULL, 4 << 12, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
        -1, 0);
    for (int page = 0; page < 4; page++)
        area[page << 12] = 5;
    prepare_here();
    check(madvise((void *)area, 4096, MADV_DONTNEED) == 0 && area[0] == 5);
    check(madvise((void *)(area + 4096), 4096, MADV_REMOVE) == 0 && area[4096] == 0);
    check(area[2 << 12] == 5);
    return carried();
}
