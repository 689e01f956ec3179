/* Not inherited by fork(2), but the process's own. */
#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    int now = 0;
    about("child subreaper");
    check(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    prepare_here();
    check(prctl(PR_GET_CHILD_SUBREAPER, &now) == 0);
    if (suite.way == FORK) {
        check(now == 0);
        return is_new();
    }
    check(now == 1);
    return carried();
}
