#include "suite.h"

extern char **environ;

int main(void)
{
    about("environ changed at run time");
    setenv("SUITE_ADDED", "before", 1);
    putenv("SUITE_PUT=put");
    unsetenv("LANG");
    prepare_here();
    check(strcmp(getenv("SUITE_ADDED"), "before") == 0 && strcmp(getenv("SUITE_PUT"), "put") == 0);
    check(getenv("LANG") == NULL);
    check(setenv("SUITE_LATER", "after", 1) == 0 && strcmp(getenv("SUITE_LATER"), "after") == 0);
    check(clearenv() == 0 && getenv("SUITE_ADDED") == NULL);
    return carried();
}
