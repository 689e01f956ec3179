/* MADV_GUARD_INSTALL, of Linux 6.13: guards that are no mapping of their own. */
#include "suite.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

int main(void)
{
    about("guard pages of MADV_GUARD_INSTALL");
    volatile char *area = mmap(NULL, 3 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
        -1, 0);
    area[0] = area[4096] = area[2 << 12] = 5;
    if (madvise((void *)(area + 4096), 4096, 102) != 0)
        return absent("MADV_GUARD_INSTALL");
    signal(SIGSEGV, handler);
    prepare_here();
    check(area[0] == 5 && area[2 << 12] == 5);
    if (sigsetjmp(back, 1) == 0) {
        area[4096] = 1;
        check(!"the guard page was written");
    }
    return carried();
}
