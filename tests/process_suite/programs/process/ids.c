/* What the agent runs as; here root on both hosts. */
#include "suite.h"

int main(void)
{
    about("user and group ids");
    prepare_here();
    uid_t real, effective, saved;
    check(getresuid(&real, &effective, &saved) == 0 && real == 0 && effective == 0 && saved == 0);
    gid_t groups[3];
    check(getresgid(&groups[0], &groups[1], &groups[2]) == 0 && groups[0] == 0 && groups[2] == 0);
    return carried();
}
