/* A cookie of core scheduling: whoever has another one runs on no sibling of its core. */
#include "suite.h"

#include <sys/prctl.h>

#define SCHED_CORE 62
#define CORE_GET 0
#define CORE_CREATE 1

int main(void)
{
    unsigned long cookie = 0;
    about("a cookie of core scheduling (PR_SCHED_CORE)");
    if (prctl(SCHED_CORE, CORE_CREATE, 0, 0, 0) != 0)
        return absent("PR_SCHED_CORE");
    prepare_here_with_files();
    check(prctl(SCHED_CORE, CORE_GET, 0, 0, &cookie) == 0 || suite.way != PLAIN);
    if (suite.way == PLAIN) {
        check(cookie != 0);
        return carried();
    }
    check(cookie == 0 && lost_as(-1) == MITOSIS_LOSS_SCHEDULING);
    return is_new();
}
