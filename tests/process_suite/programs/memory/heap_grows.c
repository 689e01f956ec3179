#include "suite.h"

int main(void)
{
    about("brk(2) and sbrk(2): the heap grows and shrinks");
    char *start = sbrk(64 << 12);
    memset(start, 5, 64 << 12);
    char *end = sbrk(0);
    prepare_here();
    /* The library may have taken some itself, as malloc(3) does. */
    char *now = sbrk(0);
    check(now >= end && start[0] == 5 && start[(64 << 12) - 1] == 5);
    check(sbrk(64 << 12) == now && now[0] == 0 && now[(64 << 12) - 1] == 0);
    now[0] = 7;
    check(brk(start + (32 << 12)) == 0 && sbrk(0) == start + (32 << 12));
    check(brk(end) == 0 && start[0] == 5 && start[32 << 12] == 0);
    return carried();
}
