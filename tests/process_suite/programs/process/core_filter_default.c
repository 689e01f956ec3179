/* An image's memory is a file's to the kernel: a core has it by bit 2 alone. */
#include "suite.h"

static long filter(void)
{
    char now[32];
    read_whole("/proc/self/coredump_filter", now, sizeof now);
    return strtol(now, NULL, 16);
}

int main(void)
{
    about("coredump_filter of a process that has not set it");
    /* The kernel's own, which the agents have, too. */
    if (filter() != 0x33)
        return absent("the kernel's own coredump_filter");
    prepare_here();
    check(filter() == (suite.way == PLAIN ? 0x33 : 0x37));
    return suite.way == PLAIN ? carried() : is_new();
}
