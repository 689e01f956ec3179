/* A process for which root is nobody special, and that has locked it so. */
#include "suite.h"

#include <linux/securebits.h>
#include <sys/prctl.h>

int main(void)
{
    about("securebits(7)");
    int bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS;
    check(prctl(PR_SET_SECUREBITS, bits) == 0);
    prepare_here();
    check(prctl(PR_GET_SECUREBITS) == bits);
    check(prctl(PR_SET_SECUREBITS, 0) == -1 && errno == EPERM);
    return carried();
}
