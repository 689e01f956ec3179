/* What another process shares with the parent it does not share with a child on another host. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    about("shared memory that another process has, too");
    volatile int *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
        0);
    pid_t pid = fork();
    if (pid == 0) {
        close_range(0, 2, 0);
        for (int turns = 0; turns < 3000; turns++) {
            area[1]++;
            sleep_ms(1);
        }
        _exit(0);
    }
    while (area[1] == 0)
        sleep_ms(1);
    prepare_here();
    int before = area[1];
    sleep_ms(100);
    if (suite.way != PLAIN) {
        check(before > 0 && area[1] == before);
        return is_new();
    }
    check(area[1] > before);
    return carried();
}
