/* mseal(2), of Linux 6.10: the mapping can be neither changed nor taken away. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("sealed mappings (mseal(2))");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area[0] = 5;
    if (syscall(462, area, 4096, 0) != 0)
        return absent("mseal(2)");
    prepare_here();
    check(area[0] == 5);
    check(mprotect(area, 4096, PROT_READ) == -1 && errno == EPERM);
    return carried();
}
