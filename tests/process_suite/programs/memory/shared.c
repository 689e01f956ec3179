/* Shared anonymous memory: the bytes are there, and the child's own forks share it. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("shared anonymous memory: bytes, and sharing with own children");
    volatile int *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
        0);
    area[0] = 5;
    prepare_here();
    check(area[0] == 5);
    pid_t pid = fork();
    if (pid == 0) {
        area[0] = 6;
        _exit(0);
    }
    check(waitpid(pid, NULL, 0) == pid && area[0] == 6);
    return carried();
}
