/* MADV_WIPEONFORK: zeros in the child, and the mark is there for its own forks. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    int status = 0;
    about("memory that a fork wipes (MADV_WIPEONFORK)");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area[0] = 5;
    check(madvise(area, 4096, MADV_WIPEONFORK) == 0);
    prepare_here();
    check(area[0] == (suite.way == PLAIN ? 5 : 0));
    area[0] = 6;
    pid_t pid = fork();
    if (pid == 0)
        _exit(area[0] == 0 ? 0 : 9);
    check(waitpid(pid, &status, 0) == pid && status == 0 && area[0] == 6);
    return suite.way == PLAIN ? carried() : is_new();
}
