/* Carry and direction, of code that a signal interrupts; the handler forks. */
#include "suite.h"

#include <signal.h>

static void handler(int signal)
{
    (void)signal;
    prepare_here();
}

int main(void)
{
    unsigned long flags = 0;
    long number = SYS_tgkill;
    about("RFLAGS of interrupted code");
    signal(SIGUSR1, handler);
    asm volatile("stc; std; syscall; pushfq; popq %[flags]; cld"
                 : "+a"(number), [flags] "=r"(flags)
                 : "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1)
                 : "rcx", "r11", "cc", "memory");
    check(suite.crossed && (flags & 1) != 0 && (flags & 1 << 10) != 0);
    return carried();
}
