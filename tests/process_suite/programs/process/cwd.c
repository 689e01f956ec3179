#include "suite.h"

#include <limits.h>
#include <sys/stat.h>

int main(void)
{
    static char now[PATH_MAX];
    about("working directory");
    check(chdir(in_folder("")) == 0);
    prepare_here();
    check(getcwd(now, sizeof now) != NULL);
    check(strcmp(now, getenv("SUITE_FOLDER")) == 0);
    check(access("kept", R_OK) == 0);
    return carried();
}
