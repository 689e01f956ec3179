/* MADV_FREE: the old bytes or zeros, never others; after a write the writer's. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("MADV_FREE");
    char *area = mmap(NULL, 16 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 16 << 12);
    prepare_here();
    check(madvise(area, 8 << 12, MADV_FREE) == 0);
    for (int page = 0; page < 8; page++)
        check(area[page << 12] == 5 || area[page << 12] == 0);
    area[4096] = 9;
    check(area[4096] == 9 && area[9 << 12] == 5);
    return carried();
}
