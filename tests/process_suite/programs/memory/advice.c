#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    const int advices[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_COLD,
        MADV_PAGEOUT,
                           MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_DOFORK,
                           MADV_POPULATE_READ, MADV_POPULATE_WRITE};
    about("advice that keeps the bytes (MADV_*)");
    char *area = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < 64; page++)
        memset(area + (page << 12), page, 4096);
    prepare_here();
    for (int at = 0; at < 13; at++) {
        /* Older kernels do not know all of it. */
        check(madvise(area, 64 << 12, advices[at]) == 0 || errno == EINVAL);
        for (int page = at; page < 64; page += 7)
            check(area[page << 12] == page && area[(page << 12) + 4095] == page);
    }
    return carried();
}
