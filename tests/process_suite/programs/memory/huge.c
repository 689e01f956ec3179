/* Transparent huge pages, with an hole in the middle afterwards. */
#include "suite.h"

#include <stdint.h>
#include <sys/mman.h>

int main(void)
{
    const size_t size = 4 << 20;
    about("memory of transparent huge pages (MADV_HUGEPAGE)");
    char *area = mmap(NULL, size + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
        -1, 0);
    area = (char *)(((uintptr_t)area + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
    check(madvise(area, size, MADV_HUGEPAGE) == 0);
    for (size_t at = 0; at < size; at += 4096)
        area[at] = (char)(at >> 12);
    prepare_here();
    for (size_t at = 0; at < size; at += 4096)
        check(area[at] == (char)(at >> 12));
    check(madvise(area + 8192, 4096, MADV_DONTNEED) == 0 && area[8192] == 0 && area[4096] == 1);
    return carried();
}
