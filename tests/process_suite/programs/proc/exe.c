#include "suite.h"

int main(void)
{
    static char before[512], now[512];
    about("/proc/self/exe");
    check(readlink("/proc/self/exe", before, sizeof before - 1) > 0);
    prepare_here();
    check(readlink("/proc/self/exe", now, sizeof now - 1) > 0);
    check(strcmp(before, now) == 0);
    return carried();
}
