#include "suite.h"

int main(void)
{
    char now[32];
    about("/proc/self/comm, written");
    int fd = open("/proc/self/comm", O_WRONLY);
    check(fd >= 0 && write(fd, "renamed", 7) == 7);
    close(fd);
    prepare_here();
    read_whole("/proc/self/comm", now, sizeof now);
    check(strcmp(now, "renamed\n") == 0);
    return carried();
}
