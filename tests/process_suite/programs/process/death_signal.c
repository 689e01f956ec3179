/* Fork mode: as after fork(2), none of its own; the child's is its keeper's, so that it ends with
 * its agent. */
#include "suite.h"

#include <signal.h>
#include <sys/prctl.h>

int main(void)
{
    int now = 0;
    about("parent-death signal");
    check(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
    prepare_here();
    check(prctl(PR_GET_PDEATHSIG, &now) == 0);
    if (suite.way != PLAIN) {
        check(now == SIGKILL);
        return is_new();
    }
    check(now == SIGUSR2);
    return carried();
}
