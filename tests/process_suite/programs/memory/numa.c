/* As of processors: numbers of nodes are another host's. */
#include "suite.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>

static int mode_of(void *area, unsigned flags)
{
    int mode = -1;
    check(syscall(SYS_get_mempolicy, &mode, NULL, 0, area, flags) == 0);
    return mode;
}

int main(void)
{
    unsigned long nodes = 1;
    about("on which nodes memory is to be (set_mempolicy(2), mbind(2))");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8) != 0)
        return absent("this kernel knows no nodes (CONFIG_NUMA)");
    check(syscall(SYS_mbind, area, 4096, MPOL_INTERLEAVE, &nodes, 8, 0) == 0);
    check(mode_of(NULL, 0) == MPOL_BIND && mode_of(area, MPOL_F_ADDR) == MPOL_INTERLEAVE);
    area[0] = 5;
    prepare_here();
    check(area[0] == 5);
    if (suite.way == PLAIN)
        return carried();
    check(mode_of(NULL, 0) == MPOL_DEFAULT && mode_of(area, MPOL_F_ADDR) == MPOL_DEFAULT);
    return is_new();
}
