#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) to another place (MREMAP_FIXED)");
    char *area = mmap(NULL, 8 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *there = mmap(NULL, 8 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 8 << 12);
    memset(there, 6, 8 << 12);
    prepare_here();
    check(mremap(area, 8 << 12, 8 << 12, MREMAP_MAYMOVE | MREMAP_FIXED, there) == there);
    for (int page = 0; page < 8; page++)
        check(there[page << 12] == 5);
    char *part = mremap(there + 4096, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, area);
    check(part == area && area[0] == 5 && there[0] == 5 && there[2 << 12] == 5);
    return carried();
}
