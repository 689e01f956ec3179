/* The message names who has it, too. */
#include "suite.h"

#include <sys/mman.h>
#include <sys/prctl.h>

int main(void)
{
    about("shared memory that another process has, too, where that is refused");
    volatile int *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
        0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, "has it, too");
        close_range(0, 2, 0);
        area[0] = 1;
        for (;;)
            pause();
    }
    while (area[0] == 0)
        sleep_ms(1);
    prepare_here_refusing(MITOSIS_LOSS_SHARED_MEMORY);
    check(area[0] == 1);
    kill(pid, SIGKILL);
    return carried();
}
