/* Nothing of what made the child is open there. */
#include "suite.h"

#include <dirent.h>

static int open_now(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

int main(void)
{
    about("/proc/self/fd has what the process had, and no more");
    close_range(3, ~0U, 0);
    int before = open_now();
    prepare_here();
    check(open_now() == before);
    return carried();
}
