#include "suite.h"

#include <sched.h>

int main(void)
{
    struct sched_param none = {0};
    about("scheduling class");
    check(sched_setscheduler(0, SCHED_BATCH, &none) == 0);
    prepare_here();
    check(sched_getscheduler(0) == SCHED_BATCH);
    return carried();
}
