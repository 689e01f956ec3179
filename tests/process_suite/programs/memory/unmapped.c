/* munmap(2) of a part, and a new mapping in the hole: zeros. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("munmap(2) of a part, and new memory in its place");
    char *area = mmap(NULL, 8 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 8 << 12);
    prepare_here();
    check(munmap(area + (2 << 12), 2 << 12) == 0);
    char *again = mmap(area + (2 << 12), 2 << 12, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    check(again == area + (2 << 12) && again[0] == 0 && again[4096] == 0);
    check(area[4096] == 5 && area[4 << 12] == 5);
    return carried();
}
