/* MAP_DROPPABLE, of Linux 6.11: a fork wipes it, and the mark is there for the child's own forks. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    int status = 0;
    about("memory that may be dropped (MAP_DROPPABLE)");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, 0x08 | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED)
        return absent("MAP_DROPPABLE");
    area[0] = 5;
    prepare_here();
    check(area[0] == 0 || (suite.way == PLAIN && area[0] == 5));
    area[0] = 6;
    pid_t pid = fork();
    if (pid == 0)
        _exit(area[0] == 0 ? 0 : 9);
    check(waitpid(pid, &status, 0) == pid && status == 0);
    check(area[0] == 6 || area[0] == 0);
    /* It has another mapping's rights, and no such mark, wherever it is not droppable: mlock(2) tells. */
    check(madvise(area, 4096, MADV_KEEPONFORK) == -1 && errno == EINVAL);
    return suite.way == PLAIN ? carried() : is_new();
}
