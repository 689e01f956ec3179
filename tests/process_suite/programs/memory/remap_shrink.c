#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    unsigned char there;
    about("mremap(2) to a smaller size, and larger again");
    char *area = mmap(NULL, 16 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 16 << 12);
    prepare_here();
    check(mremap(area, 16 << 12, 4 << 12, 0) == area);
    check(mincore(area + (4 << 12), 4096, &there) == -1 && errno == ENOMEM);
    check(mremap(area, 4 << 12, 16 << 12, 0) == area);
    check(area[3 << 12] == 5 && area[4 << 12] == 0 && area[15 << 12] == 0);
    return carried();
}
