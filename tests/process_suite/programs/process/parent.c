/* The parent is on another host; what stands in its place is not this process's business, but
 * there. */
#include "suite.h"

int main(void)
{
    about("parent's process id");
    pid_t before = getppid();
    prepare_here();
    if (suite.way != PLAIN) {
        check(getppid() >= 0 && getppid() != getpid());
        return is_new();
    }
    check(getppid() == before);
    return carried();
}
