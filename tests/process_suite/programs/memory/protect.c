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
    about("mprotect(2) before and after the fork");
    volatile char *area = mmap(NULL, 4 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
        -1, 0);
    area[0] = area[4096] = 5;
    check(mprotect((void *)area, 4096, PROT_READ) == 0);
    signal(SIGSEGV, handler);
    prepare_here();
    if (sigsetjmp(back, 1) == 0) {
        area[0] = 6;
        check(!"memory that was read-only was written");
    }
    check(area[0] == 5 && mprotect((void *)area, 4096, PROT_READ | PROT_WRITE) == 0);
    area[0] = 6;
    check(mprotect((void *)(area + 4096), 4096, PROT_NONE) == 0);
    if (sigsetjmp(back, 1) == 0) {
        check(area[4096] == 99);
        check(!"memory without access was read");
    }
    check(mprotect((void *)(area + 4096), 4096, PROT_READ) == 0 && area[4096] == 5);
    return carried();
}
