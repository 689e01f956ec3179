/* Forks of forks, each of which reads memory that nobody has touched yet. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    int status = 0;
    about("forks of forks, and memory that none has touched yet");
    char *area = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 64 << 12);
    prepare_here();
    for (int level = 0; level < 5; level++) {
        pid_t pid = fork();
        if (pid != 0) {
            check(waitpid(pid, &status, 0) == pid && status == 0);
            if (level > 0)
                _exit(0);
            check(area[63 << 12] == 5);
            return carried();
        }
        for (int page = level * 10; page < level * 10 + 10; page++)
            check(area[page << 12] == 5);
    }
    _exit(0);
}
