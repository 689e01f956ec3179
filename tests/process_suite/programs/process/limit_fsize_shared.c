/* What a child's shared memory and files are made of is larger than it may write. */
#include "suite.h"

#include <sys/mman.h>
#include <sys/resource.h>

int main(void)
{
    struct rlimit limit = {4096, 4096};
    about("a limit of a file's size below that of shared memory and of deleted files");
    char *area = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 64 << 10);
    const char *path = in_folder("deleted");
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && unlink(path) == 0 && write(fd, area, 16 << 10) == 16 << 10);
    check(setrlimit(RLIMIT_FSIZE, &limit) == 0 && signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    prepare_here_with_files();
    check(area[0] == 5 && area[(64 << 10) - 1] == 5);
    pid_t pid = fork();
    if (pid == 0) {
        area[0] = 6;
        _exit(0);
    }
    check(waitpid(pid, NULL, 0) == pid && area[0] == 6);
    char byte = 0;
    check(pread(fd, &byte, 1, (16 << 10) - 1) == 1 && byte == 5);
    check(getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur == 4096 && limit.rlim_max == 4096);
    check(pwrite(fd, &byte, 1, 4096) == -1 && errno == EFBIG);
    return carried();
}
