#include "suite.h"

#include <linux/membarrier.h>

/* Linux 6.3. What is registered for global barriers is seen by nothing else. */
#define GET_REGISTRATIONS (1 << 9)

static const struct {
    int reg, barrier;
} kinds[] = {
    {MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, MEMBARRIER_CMD_GLOBAL_EXPEDITED},
    {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED},
    {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
        MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE},
    {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static int call(int command)
{
    return (int)syscall(SYS_membarrier, command, 0, 0);
}

int main(void)
{
    int all = 0;
    about("membarrier registration, of every kind at once");
    int known = call(MEMBARRIER_CMD_QUERY);
    check(known > 0);
    for (int kind = 0; kind < KINDS; kind++) {
        if ((known & kinds[kind].reg) == 0)
            return absent("a kind of membarrier(2)");
        check(call(kinds[kind].reg) == 0);
        all |= kinds[kind].reg;
    }
    prepare_here();
    for (int kind = 0; kind < KINDS; kind++)
        check(call(kinds[kind].barrier) == 0);
    if (known & GET_REGISTRATIONS)
        check(call(GET_REGISTRATIONS) == all);
    return carried();
}
