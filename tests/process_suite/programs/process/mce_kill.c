#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    about("policy for broken memory (PR_MCE_KILL)");
    check(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0);
    prepare_here();
    check(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY);
    return carried();
}
