#include "suite.h"

int main(void)
{
    char now[32];
    about("coredump_filter");
    int fd = open("/proc/self/coredump_filter", O_WRONLY);
    check(fd >= 0 && write(fd, "0x7f", 4) == 4);
    close(fd);
    prepare_here();
    read_whole("/proc/self/coredump_filter", now, sizeof now);
    check(strtol(now, NULL, 16) == 0x7f);
    return carried();
}
