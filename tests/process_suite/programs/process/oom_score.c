#include "suite.h"

int main(void)
{
    char now[32];
    about("oom_score_adj");
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    check(fd >= 0 && write(fd, "321", 3) == 3);
    close(fd);
    prepare_here();
    read_whole("/proc/self/oom_score_adj", now, sizeof now);
    check(atoi(now) == 321);
    return carried();
}
