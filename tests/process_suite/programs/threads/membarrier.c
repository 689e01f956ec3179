/* Of a kind that was not registered the kernel refuses barriers, in a child, too. */
#include "suite.h"

#include <linux/membarrier.h>

static int barrier(int command)
{
    return (int)syscall(SYS_membarrier, command, 0, 0);
}

int main(void)
{
    about("membarrier registration");
    check(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0);
    check(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) == -1);
    prepare_here();
    check(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0);
    check(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) == -1);
    return carried();
}
