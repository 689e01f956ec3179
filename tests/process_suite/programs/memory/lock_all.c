/* mlockall(MCL_FUTURE): what is mapped later is locked, too; not after fork(2). */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mlockall(2) for memory to come");
    check(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
    prepare_here();
    long before = atol(status_of("VmLck"));
    char *area = mmap(NULL, 16 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(area != MAP_FAILED);
    long more = atol(status_of("VmLck")) - before;
    if (suite.way == FORK) {
        check(more == 0);
        return is_new();
    }
    check(more == 64);
    return carried();
}
