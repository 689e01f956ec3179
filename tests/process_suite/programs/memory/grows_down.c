#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("memory that grows down (MAP_GROWSDOWN)");
    char *room = mmap(NULL, 512 << 12, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
        0);
    check(munmap(room, 512 << 12) == 0);
    char *area = mmap(room + (480 << 12), 16 << 12, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
    check(area != MAP_FAILED);
    memset(area, 5, 16 << 12);
    prepare_here();
    check(area[0] == 5);
    for (int page = 1; page < 20; page++) {
        ((volatile char *)area)[-(page << 12)] = 1;
        check(area[-(page << 12)] == 1 && area[-(page << 12) + 1] == 0);
    }
    return carried();
}
