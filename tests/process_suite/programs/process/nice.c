#include "suite.h"

#include <sys/resource.h>

int main(void)
{
    about("nice value");
    check(setpriority(PRIO_PROCESS, 0, 7) == 0);
    prepare_here();
    errno = 0;
    check(getpriority(PRIO_PROCESS, 0) == 7 && errno == 0);
    return carried();
}
