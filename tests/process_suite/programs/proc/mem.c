/* /proc/self/mem reads and writes this process. */
#include "suite.h"

int main(void)
{
    static volatile int number = 5;
    about("/proc/self/mem");
    prepare_here();
    int got = 0, seven = 7;
    int fd = open("/proc/self/mem", O_RDWR);
    check(fd >= 0 && pread(fd, &got, sizeof got, (off_t)&number) == sizeof got && got == 5);
    check(pwrite(fd, &seven, sizeof seven, (off_t)&number) == sizeof seven && number == 7);
    return carried();
}
