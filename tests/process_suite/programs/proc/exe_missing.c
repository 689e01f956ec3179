/* The child's host has no file of this program's name, and must not run another one in its place. */
#include "suite.h"

int main(void)
{
    static char path[512];
    char *nothing[] = {NULL};
    about("the program's file, by /proc/self/exe, on a host that has not the same");
    check(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
    prepare_here();
    if (suite.way == PLAIN)
        return access("/proc/self/exe", X_OK) == 0 ? carried() : 1;
    check(access(path, F_OK) == -1 && errno == ENOENT);
    check(execve("/proc/self/exe", nothing, nothing) == -1 && errno == ENOENT);
    return is_new();
}
