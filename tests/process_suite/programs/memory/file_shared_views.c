/* Of a file that the child's host has, of one that it has not, and of parts that overlap. */
#include "suite.h"

#include <sys/mman.h>

static char *view(int fd, int rights, int page)
{
    char *area = mmap(NULL, 2 << 12, rights, MAP_SHARED, fd, page << 12);
    check(area != MAP_FAILED);
    return area;
}

int main(void)
{
    about("a file mapped shared to be read, beside a view of it that is written");
    char *written[2], *seen[2], *behind[2];
    for (int at = 0; at < 2; at++) {
        int fd = open(in_folder(at ? "missing" : "kept"), O_RDWR | O_CREAT, 0600);
        check(at == 0 || (ftruncate(fd, 3 << 12) == 0 && pwrite(fd, "the file", 8, 0) == 8));
        seen[at] = view(fd, PROT_READ, 0);
        written[at] = view(fd, PROT_READ | PROT_WRITE, 0);
        behind[at] = view(fd, PROT_READ, 1);
        close(fd);
    }
    memcpy(written[1] + (1 << 12), "before", 6);
    prepare_here();
    for (int at = 0; at < 2; at++) {
        check(memcmp(seen[at], "the file", 8) == 0 && memcmp(written[at], "the file", 8) == 0);
        memcpy(written[at], "THE", 3);
        check(memcmp(seen[at], "THE file", 8) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            memcpy(written[at] + 4, "FILE", 4);
            _exit(0);
        }
        int status;
        check(waitpid(pid, &status, 0) == pid && status == 0);
        check(memcmp(seen[at], "THE FILE", 8) == 0);
    }
    check(memcmp(behind[1], "before", 6) == 0 && memcmp(seen[1] + (1 << 12), "before", 6) == 0);
    memcpy(written[1] + (1 << 12), "BEHIND", 6);
    check(memcmp(behind[1], "BEHIND", 6) == 0);
    return carried();
}
