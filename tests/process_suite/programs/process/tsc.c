#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    int now = 0;
    about("reading the TSC forbidden (PR_SET_TSC)");
    check(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
    prepare_here();
    check(prctl(PR_GET_TSC, &now) == 0 && now == PR_TSC_SIGSEGV);
    return carried();
}
