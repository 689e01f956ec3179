/* Three numbers on the x87's stack, held by code that a signal interrupts; the handler forks. */
#include "suite.h"

#include <signal.h>

static void handler(int signal)
{
    (void)signal;
    prepare_here();
}

int main(void)
{
    long double one = 0, pi = 0, two = 0;
    long number = SYS_tgkill;
    about("x87 stack of interrupted code");
    signal(SIGUSR1, handler);
    asm volatile("fldl2t; fldpi; fld1; syscall; fstpt %[one]; fstpt %[pi]; fstpt %[two]"
                 : "+a"(number), [one] "=m"(one), [pi] "=m"(pi), [two] "=m"(two)
                 : "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1)
                 : "rcx", "r11", "memory");
    check(suite.crossed && one == 1.0L);
    check(pi > 3.14159265358979323L && pi < 3.14159265358979324L);
    check(two > 3.3219280948873623L && two < 3.3219280948873624L);
    return carried();
}
