/* Of Linux 6.15: before, only private memory has such guards. They are a mapping's: what is beneath is as it was. */
#include "guards.h"

#include <sys/mman.h>

int main(void)
{
    about("guard pages of MADV_GUARD_INSTALL in shared memory (from Linux 6.15 on)");
    int rights = PROT_READ | PROT_WRITE, fd = open(in_folder("kept"), O_RDWR);
    volatile char *area = mmap(NULL, 3 << 12, rights, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    volatile char *again = mremap((void *)area, 0, 3 << 12, MREMAP_MAYMOVE);
    volatile char *file = mmap(NULL, 4096, rights, MAP_SHARED, fd, 0);
    check(area != MAP_FAILED && again != MAP_FAILED && file != MAP_FAILED);
    close(fd);
    area[0] = area[1 << 12] = area[2 << 12] = 5;
    if (madvise((void *)(area + 4096), 4096, 102) != 0)
        return absent("MADV_GUARD_INSTALL in shared memory");
    check(madvise((void *)file, 4096, 102) == 0);
    expect_faults();
    prepare_here();
    check(area[0] == 5 && area[2 << 12] == 5);
    check_guarded(area + 4096);
    check_guarded(file);
    check(again[1 << 12] == 5);
    again[1 << 12] = 6;
    /* Processes that are forked have them, too. */
    pid_t pid = fork();
    if (pid == 0) {
        check_guarded(area + 4096);
        _exit(again[1 << 12] != 6);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0);
    check(madvise((void *)(area + 4096), 4096, 103) == 0 && area[1 << 12] == 6);
    check(madvise((void *)file, 4096, 103) == 0 && memcmp((char *)file, "the file", 8) == 0);
    return carried();
}
