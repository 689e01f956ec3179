/* When the process began, of proc_pid_stat(5), against its own clock. */
#include "suite.h"

int main(void)
{
    static char text[4096];
    about("start time in /proc/self/stat lies before now");
    prepare_here();
    read_whole("/proc/self/stat", text, sizeof text);
    char *at = strrchr(text, ')') + 1;
    int field = 3;
    double started = 0;
    for (char *word = strtok(at, " "); word; word = strtok(NULL, " "), field++)
        if (field == 22)
            started = (double)strtoull(word, NULL, 10) / (double)sysconf(_SC_CLK_TCK);
    double now = (double)now_ns(CLOCK_BOOTTIME) / 1e9;
    check(started > 0 && now - started > -0.1 && now - started < 60);
    return carried();
}
