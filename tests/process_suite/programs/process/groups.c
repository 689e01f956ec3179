/* The groups of a process that stays root, so that the agent answers it. */
#include "suite.h"

#include <grp.h>

int main(void)
{
    gid_t groups[4] = {0};
    about("group and supplementary groups that were changed");
    check(setgroups(2, (gid_t[]){4321, 4325}) == 0 && setresgid(4322, 4323, 4324) == 0);
    prepare_here();
    gid_t real, effective, saved;
    check(getresgid(&real, &effective, &saved) == 0);
    check(real == 4322 && effective == 4323 && saved == 4324);
    check(getgroups(4, groups) == 2 && groups[0] == 4321 && groups[1] == 4325);
    return carried();
}
