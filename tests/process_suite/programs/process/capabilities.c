/* Capabilities that were dropped before the fork. */
#include "suite.h"

#include <linux/capability.h>

int main(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2], now[2];
    about("capabilities that were dropped");
    check(syscall(SYS_capget, &header, sets) == 0);
    sets[0].effective &= ~(1U << CAP_CHOWN);
    sets[0].permitted &= ~(1U << CAP_CHOWN);
    check(syscall(SYS_capset, &header, sets) == 0);
    prepare_here();
    check(syscall(SYS_capget, &header, now) == 0);
    check((now[0].permitted & 1U << CAP_CHOWN) == 0 && (now[0].effective & 1U << CAP_CHOWN) == 0);
    return carried();
}
