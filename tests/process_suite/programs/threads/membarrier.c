#include "suite.h"

#include <linux/membarrier.h>

int main(void)
{
    about("membarrier registration");
    check(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0);
    prepare_here();
    check(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
    return carried();
}
