/* What it grows by is locked, too, at once. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) of locked memory");
    char *area = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(munmap(area + (8 << 12), 56 << 12) == 0);
    memset(area, 5, 8 << 12);
    check(mlock(area, 8 << 12) == 0 && atol(status_of("VmLck")) == 32);
    prepare_here();
    if (suite.way == FORK) {
        /* As after fork(2). */
        check(atol(status_of("VmLck")) == 0);
        return is_new();
    }
    check(mremap(area, 8 << 12, 16 << 12, 0) == area && area[7 << 12] == 5);
    check(atol(status_of("VmLck")) == 64);
    char *moved = mremap(area, 16 << 12, 32 << 12, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED && moved[7 << 12] == 5 && moved[31 << 12] == 0);
    check(atol(status_of("VmLck")) == 128);
    moved = mremap(moved, 32 << 12, 8 << 12, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED && moved[7 << 12] == 5);
    check(atol(status_of("VmLck")) == 32);
    /* Discards and mlock(2)'s own way out. */
    check(madvise(moved, 4096, MADV_DONTNEED) == -1 && errno == EINVAL && moved[0] == 5);
    check(munlock(moved, 8 << 12) == 0 && atol(status_of("VmLck")) == 0);
    return carried();
}
