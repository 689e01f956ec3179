/* The call's number is not loaded right before `syscall`: nothing leads this one to the stub, and what it discards is the
 * seed's again, not zeros. What was written since the fork is gone, and memory that the child maps itself is zeros. */
#include "suite.h"

#include <sys/mman.h>

static long by_hand(long number, void *address, long size, long advice)
{
    long answer;
    __asm__ volatile("nop; nop; nop; nop; nop; nop; syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(address), "S"(size), "d"(advice)
                     : "rcx", "r11", "memory");
    return answer;
}

int main(void)
{
    about("MADV_DONTNEED by a system call that is the program's own");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area[0] = 5;
    prepare_here();
    check(area[0] == 5);
    area[0] = 6;
    check(by_hand(SYS_madvise, area, 4096, MADV_DONTNEED) == 0);
    check(area[0] == (suite.way == PLAIN ? 0 : 5));
    char *own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    own[0] = 7;
    check(by_hand(SYS_madvise, own, 4096, MADV_DONTNEED) == 0 && own[0] == 0);
    return suite.way == PLAIN ? carried() : is_new();
}
