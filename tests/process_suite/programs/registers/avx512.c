/* ZMM, its upper sixteen, and a mask register, held by code that a signal interrupts; the handler
 * forks. */
#include "suite.h"

#include <signal.h>

static void handler(int signal)
{
    (void)signal;
    prepare_here();
}

int main(void)
{
    unsigned long in[8], out[17] = {0};
    long number = SYS_tgkill;
    about("AVX-512 registers of interrupted code");
    if (!__builtin_cpu_supports("avx512f"))
        return absent("AVX-512");
    for (int at = 0; at < 8; at++)
        in[at] = 0x1111111111111111 * (unsigned long)(at + 1);
    signal(SIGUSR1, handler);
    asm volatile("vmovdqu64 (%[in]), %%zmm5; vmovdqu64 (%[in]), %%zmm30;"
                 "movl $0x55aa, %%ecx; kmovw %%ecx, %%k3; syscall;"
                 "vmovdqu64 %%zmm5, (%[out]); vmovdqu64 %%zmm30, 64(%[out]);"
                 "kmovw %%k3, %%ecx; movq %%rcx, 128(%[out])"
                 : "+a"(number)
                 : "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1), [in] "r"(in),
                   [out] "r"(out)
                 : "rcx", "r11", "xmm5", "memory");
    check(suite.crossed && memcmp(in, out, 64) == 0 && memcmp(in, out + 8, 64) == 0);
    check(out[16] == 0x55aa);
    return carried();
}
