/* A file of /proc/self is the child's own. */
#include "suite.h"

int main(void)
{
    char text[64] = {0};
    about("an open file of /proc/self");
    int fd = open("/proc/self/comm", O_RDWR);
    check(fd >= 0);
    prepare_here_with_files();
    check(write(fd, "anew", 4) == 4 && pread(fd, text, 63, 0) == 5);
    check(strcmp(status_of("Name"), "anew") == 0);
    return carried();
}
