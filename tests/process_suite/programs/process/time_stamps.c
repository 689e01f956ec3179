/* PR_SET_TSC of the caller. */
#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    int state = 0;
    about("no time stamp counter for the caller (PR_SET_TSC)");
    if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) != 0)
        return absent("PR_SET_TSC");
    prepare_here();
    check(prctl(PR_GET_TSC, &state, 0, 0, 0) == 0 && state == PR_TSC_SIGSEGV);
    return carried();
}
