/* MAP_HUGETLB, where this host has such pages. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("pages of MAP_HUGETLB");
    char *area = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (area == MAP_FAILED)
        return absent("reserved huge pages");
    area[1 << 20] = 5;
    prepare_here();
    check(area[1 << 20] == 5 && area[0] == 0);
    area[0] = 1;
    return carried();
}
