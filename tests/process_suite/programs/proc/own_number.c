/* /proc/PID by the number that the process knows of itself. */
#include "suite.h"

int main(void)
{
    char path[64];
    about("/proc/PID by the own process id");
    prepare_here();
    snprintf(path, sizeof path, "/proc/%d/comm", getpid());
    check(access(path, R_OK) == 0 && strcmp(line_of(path, ""), status_of("Name")) == 0);
    return carried();
}
