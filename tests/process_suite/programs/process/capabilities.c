/* Capabilities that were dropped before the fork, and some that executed files are to have. */
#include "suite.h"

#include <linux/capability.h>
#include <sys/prctl.h>

static struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

int main(void)
{
    struct __user_cap_data_struct sets[2], now[2];
    about("capabilities that were dropped");
    check(prctl(PR_CAPBSET_DROP, CAP_MKNOD, 0, 0, 0) == 0);
    check(syscall(SYS_capget, &header, sets) == 0);
    sets[0].effective &= ~(1U << CAP_CHOWN);
    sets[0].permitted &= ~(1U << CAP_CHOWN);
    sets[0].effective &= ~(1U << CAP_KILL);
    sets[0].inheritable |= 1U << CAP_NET_RAW;
    check(syscall(SYS_capset, &header, sets) == 0);
    check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0) == 0);
    int bits = prctl(PR_GET_SECUREBITS);
    prepare_here();
    check(syscall(SYS_capget, &header, now) == 0);
    check(memcmp(now, sets, sizeof sets) == 0);
    check(prctl(PR_CAPBSET_READ, CAP_MKNOD, 0, 0, 0) == 0);
    check(prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0) == 1);
    check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0) == 1);
    check(prctl(PR_GET_SECUREBITS) == bits);
    sets[0].effective |= 1U << CAP_KILL;
    check(syscall(SYS_capset, &header, sets) == 0);
    sets[0].permitted |= 1U << CAP_CHOWN;
    check(syscall(SYS_capset, &header, sets) == -1 && errno == EPERM);
    return carried();
}
