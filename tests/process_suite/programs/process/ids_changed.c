/* A process that has given its rights up before the fork must not have them in a child. */
#include "suite.h"

#include <grp.h>

int main(void)
{
    gid_t groups[4] = {0};
    about("user, group and groups of a process that has dropped its rights");
    check(setgroups(1, (gid_t[]){4321}) == 0 && setegid(4322) == 0 && seteuid(4323) == 0);
    prepare_here();
    check(geteuid() == 4323 && getegid() == 4322 && getuid() == 0);
    check(getgroups(4, groups) == 1 && groups[0] == 4321);
    return carried();
}
