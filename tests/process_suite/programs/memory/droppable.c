/* MAP_DROPPABLE, of Linux 6.11: zeros, or what was written there last. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("memory that may be dropped (MAP_DROPPABLE)");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, 0x08 | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED)
        return absent("MAP_DROPPABLE");
    area[0] = 5;
    prepare_here();
    check(area[0] == 5 || area[0] == 0);
    area[0] = 6;
    check(area[0] == 6 || area[0] == 0);
    return carried();
}
