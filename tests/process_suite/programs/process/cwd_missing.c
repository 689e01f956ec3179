/* A directory that the other host has not. */
#include "suite.h"

#include <limits.h>
#include <sys/stat.h>

int main(void)
{
    static char now[PATH_MAX];
    about("a working directory that the child's host has not");
    check(mkdir(in_folder("alone"), 0700) == 0 && chdir(in_folder("alone")) == 0);
    prepare_here();
    check(getcwd(now, sizeof now) != NULL);
    if (suite.way != PLAIN) {
        check(strcmp(now, "/") == 0);
        return is_new();
    }
    check(strcmp(now, in_folder("alone")) == 0);
    return carried();
}
