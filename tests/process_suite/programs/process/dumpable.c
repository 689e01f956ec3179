#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    about("dumpable (PR_SET_DUMPABLE)");
    check(prctl(PR_SET_DUMPABLE, 0) == 0);
    prepare_here();
    check(prctl(PR_GET_DUMPABLE) == 0);
    return carried();
}
