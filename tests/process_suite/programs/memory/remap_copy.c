/* An old size of 0 maps shared memory once more. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mremap(2) of size 0: shared memory mapped once more");
    char *area = mmap(NULL, 4 << 12, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    area[4096] = 5;
    prepare_here();
    char *again = mremap(area, 0, 4 << 12, MREMAP_MAYMOVE);
    check(again != MAP_FAILED && again[4096] == 5);
    again[0] = 7;
    check(((volatile char *)area)[0] == 7);
    return carried();
}
