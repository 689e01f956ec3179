/* Neither a process that has ended nor a seed of this one is another that has it, too. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("shared memory of the process alone, where sharing it with another is refused");
    int *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit((area[0] = 1) != 1);
    check(waitpid(pid, NULL, 0) == pid && area[0] == 1);
    if (suite.way != PLAIN) {
        mitosis_seed *seed;
        const char *handle;
        check(mitosis_prepare(NULL, &seed) == MITOSIS_PARENT);
        check(mitosis_seed_handle(seed, &handle) == MITOSIS_OK);
    }
    prepare_here_refusing(MITOSIS_LOSS_SHARED_MEMORY);
    check(area[0] == 1);
    return carried();
}
