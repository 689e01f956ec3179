/* Bytes that nobody may read are there when somebody may. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("bytes of memory without access (PROT_NONE)");
    char *area = mmap(NULL, 4 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 4 << 12);
    check(mprotect(area, 4 << 12, PROT_NONE) == 0);
    prepare_here();
    check(mprotect(area, 4 << 12, PROT_READ) == 0);
    for (int page = 0; page < 4; page++)
        check(area[page << 12] == 5);
    return carried();
}
