#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    const size_t size = 1UL << 36;
    about("sparse memory of 64 GiB");
    char *area = mmap(NULL, size, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(area != MAP_FAILED && madvise(area, size, MADV_NOHUGEPAGE) == 0);
    for (size_t at = 0; at < 16; at++)
        area[at * (size / 16) + 4096 * at] = (char)(at + 1);
    prepare_here();
    for (size_t at = 0; at < 16; at++) {
        check(area[at * (size / 16) + 4096 * at] == (char)(at + 1));
        check(area[at * (size / 16) + 4096 * at + 8192] == 0);
    }
    return carried();
}
