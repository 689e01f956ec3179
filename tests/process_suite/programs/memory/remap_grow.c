/* Grown in place and by moving: new pages are zero. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) to a larger size");
    char *area = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(munmap(area + (8 << 12), 56 << 12) == 0);
    memset(area, 5, 8 << 12);
    prepare_here();
    check(mremap(area, 8 << 12, 16 << 12, 0) == area && area[7 << 12] == 5);
    for (int page = 8; page < 16; page++)
        check(area[page << 12] == 0 && area[(page << 12) + 4095] == 0);
    char *moved = mremap(area, 16 << 12, 512 << 12, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED && moved[0] == 5 && moved[7 << 12] == 5 && moved[8 << 12] == 0);
    check(moved[511 << 12] == 0);
    moved[511 << 12] = 1;
    return carried();
}
