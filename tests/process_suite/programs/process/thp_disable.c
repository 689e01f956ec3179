#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    about("transparent huge pages switched off (PR_SET_THP_DISABLE)");
    check(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    prepare_here();
    check(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
    return carried();
}
