/* What was mapped lies in the child's object where it lay; nobody has told what is between, and there is its end. */
#include "suite.h"

#include <setjmp.h>
#include <sys/mman.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

/* The signal of a read of it, or 0. */
static int signal_of(volatile char *at)
{
    int signal = sigsetjmp(back, 1);
    if (signal == 0)
        (void)*at;
    return signal;
}

int main(void)
{
    about("mremap(2) of a memfd over a part that was not mapped, before one that was");
    int fd = memfd_create("suite", MFD_CLOEXEC);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "second", 6, 1 << 12) == 6);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *last = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 3 << 12);
    check(area != MAP_FAILED && last != MAP_FAILED);
    close(fd);
    area[0] = last[0] = 5;
    signal(SIGBUS, handler);
    prepare_here();
    area = mremap(area, 4096, 4 << 12, MREMAP_MAYMOVE);
    check(area != MAP_FAILED && area[0] == 5 && last[0] == 5);
    if (suite.way != PLAIN) {
        for (int page = 1; page < 4; page++)
            check(signal_of(area + (page << 12)) == SIGBUS);
        return is_new();
    }
    check(area[3 << 12] == 5 && memcmp(area + (1 << 12), "second", 6) == 0);
    return carried();
}
