/* MREMAP_DONTUNMAP: the old place stays, with nothing in it. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) that leaves the old place (MREMAP_DONTUNMAP)");
    char *area = mmap(NULL, 8 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 8 << 12);
    prepare_here();
    char *moved = mremap(area, 8 << 12, 8 << 12, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    check(moved != MAP_FAILED && moved != area && moved[0] == 5 && moved[7 << 12] == 5);
    for (int page = 0; page < 8; page++)
        check(area[page << 12] == 0);
    area[0] = 1;
    check(moved[0] == 5);
    return carried();
}
