/* From here on no function returns that was called before: those that were are on no shadow stack. */
#include "suite.h"

#define ARCH_SHSTK_ENABLE 0x5001

/* Without a function that would return. */
static inline __attribute__((always_inline)) long enable(void)
{
    long answer = SYS_arch_prctl;
    __asm__ volatile("syscall"
                     : "+a"(answer)
                     : "D"(ARCH_SHSTK_ENABLE), "S"(1L)
                     : "rcx", "r11", "memory");
    return answer;
}

int main(void)
{
    about("a shadow stack");
    if (enable() != 0)
        return absent("the processor or the kernel has none");
    prepare_here();
    carried();
    fflush(stdout);
    _exit(0);
}
