/* The unwinder finds its tables and the frames of before the fork. */
#include "suite.h"

#include <execinfo.h>

__attribute__((noinline)) static int frames(int levels)
{
    void *found[64];
    if (levels > 0) {
        int count = frames(levels - 1);
        asm volatile("" : : : "memory");
        return count;
    }
    prepare_here();
    return backtrace(found, 64);
}

int main(void)
{
    about("backtrace(3) through frames of before the fork");
    int count = frames(10);
    check(count >= 12 && count < 64);
    return carried();
}
