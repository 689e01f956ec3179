#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    about("keepcaps (PR_SET_KEEPCAPS)");
    check(prctl(PR_SET_KEEPCAPS, 1) == 0);
    prepare_here();
    check(prctl(PR_GET_KEEPCAPS) == 1);
    return carried();
}
