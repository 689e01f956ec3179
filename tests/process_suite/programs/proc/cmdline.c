#include "suite.h"

int main(int count, char **arguments)
{
    static char before[4096], now[4096];
    about("/proc/self/cmdline and argv");
    size_t length = read_whole("/proc/self/cmdline", before, sizeof before);
    char *own = strdup(arguments[0]);
    prepare_here();
    check(count == 1 && strcmp(arguments[0], own) == 0);
    check(read_whole("/proc/self/cmdline", now, sizeof now) == length && length > 1);
    check(memcmp(before, now, length) == 0);
    return carried();
}
