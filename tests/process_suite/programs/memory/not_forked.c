/* MADV_DONTFORK: not there in fork mode, as after fork(2); a whole process has it, and the mark. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    int status = 0;
    unsigned char there;
    about("memory that a fork leaves out (MADV_DONTFORK)");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area[0] = 5;
    check(madvise(area, 4096, MADV_DONTFORK) == 0);
    prepare_here();
    if (suite.way == FORK) {
        check(mincore(area, 4096, &there) == -1 && errno == ENOMEM);
        return is_new();
    }
    check(area[0] == 5);
    pid_t pid = fork();
    if (pid == 0)
        _exit(mincore(area, 4096, &there) == -1 && errno == ENOMEM ? 0 : 9);
    check(waitpid(pid, &status, 0) == pid && status == 0);
    return carried();
}
