/* The child has of an object what was mapped of it: behind that is its end. Of one that is open it has all. */
#include "suite.h"

#include <setjmp.h>
#include <sys/mman.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

/* A page of four, grown to all of them. */
static volatile char *grown(char *area)
{
    area = mremap(area, 4096, 4 << 12, MREMAP_MAYMOVE);
    check(area != MAP_FAILED && memcmp(area, "first", 5) == 0);
    return area;
}

static char *mapped(int fd)
{
    check(fd >= 0 && ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5);
    check(pwrite(fd, "fourth", 6, 3 << 12) == 6);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(area != MAP_FAILED);
    return area;
}

/* The signal of a read of the last page; 0: it has its bytes. */
static int last_page(volatile char *area)
{
    int signal = sigsetjmp(back, 1);
    if (signal == 0)
        check(memcmp((char *)area + (3 << 12), "fourth", 6) == 0);
    return signal;
}

int main(void)
{
    about("mremap(2) of shared memory, a memfd, a shared file, past what was mapped");
    int open_fd = memfd_create("open", MFD_CLOEXEC), fd = memfd_create("closed", MFD_CLOEXEC);
    char *of_open = mapped(open_fd), *of_closed = mapped(fd);
    close(fd);
    char *of_file = mapped(fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600));
    close(fd);
    char *anonymous = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memcpy(anonymous, "first", 5);
    signal(SIGBUS, handler);
    prepare_here_with_files();
    check(last_page(grown(of_open)) == 0);
    /* In any process. */
    check(last_page(grown(anonymous)) == SIGBUS);
    int of_a_child = suite.way == PLAIN ? 0 : SIGBUS;
    check(last_page(grown(of_closed)) == of_a_child);
    check(last_page(grown(of_file)) == of_a_child);
    return suite.way == PLAIN ? carried() : is_new();
}
