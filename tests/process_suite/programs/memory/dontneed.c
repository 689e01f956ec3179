#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("MADV_DONTNEED gives zeros");
    char *area = mmap(NULL, 32 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 32 << 12);
    prepare_here();
    check(area[0] == 5 && madvise(area, 8 << 12, MADV_DONTNEED) == 0);
    for (int page = 0; page < 32; page++)
        check(area[page << 12] == (page < 8 ? 0 : 5) &&
            area[(page << 12) + 4095] == (page < 8 ? 0 : 5));
    area[0] = 6;
    check(madvise(area, 4096, MADV_DONTNEED) == 0 && area[0] == 0);
    return carried();
}
