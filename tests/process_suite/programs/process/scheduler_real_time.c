#include "suite.h"

#include <sched.h>

int main(void)
{
    struct sched_param wanted = {.sched_priority = 7}, is;
    about("a real-time scheduling class, and its priority");
    if (sched_setscheduler(0, SCHED_RR, &wanted) != 0)
        return absent("this process may not be so");
    prepare_here();
    check(sched_getscheduler(0) == SCHED_RR);
    check(sched_getparam(0, &is) == 0 && is.sched_priority == 7);
    return carried();
}
