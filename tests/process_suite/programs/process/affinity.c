#include "suite.h"

#include <sched.h>

int main(void)
{
    cpu_set_t one, before, now;
    about("CPU affinity");
    check(sched_getaffinity(0, sizeof before, &before) == 0);
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    check(sched_setaffinity(0, sizeof one, &one) == 0);
    prepare_here();
    check(sched_getaffinity(0, sizeof now, &now) == 0);
    if (suite.way != PLAIN) {
        /* The other host's CPUs are others: the child has all that its agent may use. */
        check(CPU_COUNT(&now) == CPU_COUNT(&before));
        return is_new();
    }
    check(CPU_EQUAL(&now, &one));
    return carried();
}
