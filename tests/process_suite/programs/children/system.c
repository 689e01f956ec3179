#include "suite.h"

int main(void)
{
    about("system(3)");
    prepare_here();
    check(WEXITSTATUS(system("exit 9")) == 9);
    check(system("test $PPID -gt 0") == 0);
    return carried();
}
