/* The kernel itself touches a page that is not there yet: as source and as target of system
 * calls. */
#include "suite.h"

#include <sys/mman.h>
#include <sys/uio.h>

int main(void)
{
    int ends[2];
    char got[5] = {0};
    about("system calls on memory that is not there yet");
    char *area = mmap(NULL, 8 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < 8; page++)
        memcpy(area + (page << 12), "bytes", 5);
    prepare_here();
    check(pipe(ends) == 0);
    check(write(ends[1], area, 5) == 5 && read(ends[0], area + 4096, 5) == 5);
    check(memcmp(area + 4096, "bytes", 5) == 0);
    struct iovec local = {got, 5}, remote = {area + (2 << 12), 5};
    check(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 5 &&
        memcmp(got, "bytes", 5) == 0);
    int *place = (int *)(void *)(area + (3 << 12));
    check(syscall(SYS_futex, place, 0, 0, NULL) == -1 && errno == EAGAIN);
    check(memcmp(area + (7 << 12), "bytes", 5) == 0);
    return carried();
}
