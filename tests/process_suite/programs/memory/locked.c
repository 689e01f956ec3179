#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("memory that is locked (mlock(2))");
    char *area = mmap(NULL, 16 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 16 << 12);
    check(mlock(area, 16 << 12) == 0);
    prepare_here();
    long locked = atol(status_of("VmLck"));
    check(area[0] == 5 && area[15 << 12] == 5);
    if (suite.way == FORK) {
        /* As after fork(2). */
        check(locked == 0);
        return is_new();
    }
    check(locked >= 64);
    return carried();
}
