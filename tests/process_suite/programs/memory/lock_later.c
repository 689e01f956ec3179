#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("mlock(2), mlockall(2) and munlock(2) after the fork");
    char *area = mmap(NULL, 16 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 16 << 12);
    prepare_here();
    check(mlock(area, 16 << 12) == 0 && atol(status_of("VmLck")) >= 64);
    check(area[0] == 5 && area[15 << 12] == 5);
    check(munlock(area, 16 << 12) == 0 && atol(status_of("VmLck")) == 0);
    check(mlockall(MCL_FUTURE) == 0 && munlockall() == 0);
    return carried();
}
