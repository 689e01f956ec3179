/* A process that has changed its root before the fork. */
#include "suite.h"

int main(void)
{
    about("root directory (chroot(2))");
    check(chroot(in_folder("")) == 0 && chdir("/") == 0);
    check(access("/kept", R_OK) == 0);
    prepare_here();
    check(access("/kept", R_OK) == 0 && access("/proc", F_OK) == -1);
    return carried();
}
