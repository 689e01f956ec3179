/* Beyond a mapped file's end: SIGBUS, as there. */
#include "suite.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

int main(void)
{
    about("pages beyond the end of a mapped file");
    int fd = open(in_folder("kept"), O_RDWR);
    volatile char *area = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    signal(SIGBUS, handler);
    prepare_here();
    check(area[0] == 't' && area[100] == 0);
    if (sigsetjmp(back, 1) == 0) {
        check(area[4096] == 99);
        check(!"a page beyond the end was read");
    }
    return carried();
}
