/* The upper halves, held by code that a signal interrupts; the handler forks. */
#include "suite.h"

#include <signal.h>

static void handler(int signal)
{
    (void)signal;
    prepare_here();
}

int main(void)
{
    unsigned long in[4] = {1, 2, 3, 0xfedcba9876543210}, out[4] = {0};
    long number = SYS_tgkill;
    about("AVX registers of interrupted code");
    if (!__builtin_cpu_supports("avx"))
        return absent("AVX");
    signal(SIGUSR1, handler);
    asm volatile("vmovdqu (%[in]), %%ymm9; syscall; vmovdqu %%ymm9, (%[out])"
                 : "+a"(number)
                 : "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1), [in] "r"(in),
                   [out] "r"(out)
                 : "rcx", "r11", "xmm9", "memory");
    check(suite.crossed && memcmp(in, out, sizeof in) == 0);
    return carried();
}
