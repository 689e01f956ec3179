/* Held by code that a signal interrupts; the handler forks. */
#include "suite.h"

#include <signal.h>

static void handler(int signal)
{
    (void)signal;
    prepare_here();
}

int main(void)
{
    const unsigned long in[2] = {0x0123456789abcdef, 0xfedcba9876543210};
    unsigned long out[4] = {0};
    long number = SYS_tgkill;
    about("SSE registers of interrupted code");
    signal(SIGUSR1, handler);
    asm volatile("movdqu (%[in]), %%xmm0; movdqu (%[in]), %%xmm15; syscall;"
                 "movdqu %%xmm0, (%[out]); movdqu %%xmm15, 16(%[out])"
                 : "+a"(number)
                 : "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1), [in] "r"(in),
                     [out] "r"(out)
                 : "rcx", "r11", "xmm0", "xmm15", "memory");
    check(suite.crossed && memcmp(in, out, 16) == 0 && memcmp(in, out + 2, 16) == 0);
    return carried();
}
