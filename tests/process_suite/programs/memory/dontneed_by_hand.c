/* The call's number is not loaded right before `syscall`, as Go's runtime does it: nothing leads this one to the stub, and
 * what it discards is the seed's again, not zeros. */
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
    check(by_hand(SYS_madvise, area, 4096, MADV_DONTNEED) == 0);
    check(area[0] == 0);
    return carried();
}
