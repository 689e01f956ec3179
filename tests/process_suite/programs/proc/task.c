#include "suite.h"

#include <dirent.h>

int main(void)
{
    int count = 0;
    about("/proc/self/task has the process's threads alone");
    prepare_here();
    DIR *folder = opendir("/proc/self/task");
    check(folder != NULL);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.') {
            check(atoi(entry->d_name) == gettid());
            count++;
        }
    check(count == 1);
    return carried();
}
