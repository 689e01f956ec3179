/* Tags in addresses, which the kernel takes off: nothing of x86 but where the processor masks them, too (LAM). */
#include "suite.h"

#include <sys/prctl.h>

#define ENABLE_TAGGED_ADDR 0x4002
#define TAG_BITS 6

int main(void)
{
    about("tagged addresses (PR_SET_TAGGED_ADDR_CTRL; on x86 ARCH_ENABLE_TAGGED_ADDR)");
    if (prctl(PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE, 0, 0, 0) != 0
        && syscall(SYS_arch_prctl, ENABLE_TAGGED_ADDR, TAG_BITS) != 0)
        return absent("tagged addresses");
    char *memory = malloc(1), *tagged = (char *)((uintptr_t)memory | 1UL << 57);
    *tagged = 7;
    check(*memory == 7);
    prepare_here();
    *tagged = 8;
    check(*memory == 8);
    return carried();
}
