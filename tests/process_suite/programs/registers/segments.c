#include "suite.h"

#include <asm/prctl.h>

int main(void)
{
    static unsigned long words[2] = {0x1234567890, 0};
    unsigned long fs = 0, fs_now = 0, gs = 0;
    about("bases of FS and GS");
    check(syscall(SYS_arch_prctl, ARCH_SET_GS, words) == 0);
    check(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs) == 0);
    prepare_here();
    check(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_now) == 0 && fs_now == fs);
    asm volatile("movq %%gs:0, %0" : "=r"(gs));
    check(gs == words[0]);
    return carried();
}
