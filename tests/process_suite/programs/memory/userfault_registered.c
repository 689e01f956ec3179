/* Who waits for its faults knows nothing of a child. */
#include "suite.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

int main(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    about("memory whose faults a userfaultfd is told");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    check(faults >= 0 && ioctl(faults, UFFDIO_API, &api) == 0);
    struct uffdio_register range =
        {.range = {(unsigned long)area, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    check(ioctl(faults, UFFDIO_REGISTER, &range) == 0);
    prepare_here();
    if (suite.way == PLAIN)
        return carried();
    check(area[0] == 0);
    return is_new();
}
