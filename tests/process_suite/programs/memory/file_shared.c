/* Written to by the child, the file on its host has it: for whoever reads it, maps it anew, or has it from before. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    char text[32] = {0};
    about("a file mapped shared, which the child's host has, too");
    int fd = open(in_folder("kept"), O_RDWR);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *twice = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(area != MAP_FAILED && twice != MAP_FAILED);
    close(fd);
    prepare_here_with_files();
    check(memcmp(area, "the file", 8) == 0);
    memcpy(area + 4, "FILE", 4);
    check(memcmp(twice, "the FILE", 8) == 0);
    check(msync(area, 4096, MS_SYNC) == 0);
    read_whole(in_folder("kept"), text, sizeof text);
    check(strcmp(text, "the FILE's text\n") == 0);
    /* What another process writes there is seen. */
    pid_t pid = fork();
    if (pid == 0) {
        fd = open(in_folder("kept"), O_RDWR);
        _exit(pwrite(fd, "THE", 3, 0) != 3);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0);
    check(memcmp(area, "THE FILE", 8) == 0);
    /* The kernel's own rules: discarded pages are the file's, and the mapping grows with it. */
    check(madvise(area, 4096, MADV_DONTNEED) == 0 && memcmp(area, "THE FILE", 8) == 0);
    check(truncate(in_folder("kept"), 2 << 12) == 0);
    area = mremap(area, 4096, 2 << 12, MREMAP_MAYMOVE);
    check(area != MAP_FAILED && area[1 << 12] == 0);
    mitosis_loss loss = {.size = sizeof loss};
    for (size_t at = 0; mitosis_lost(at, &loss) == MITOSIS_OK; at++)
        check(loss.kind != MITOSIS_LOSS_SHARED_FILES);
    return carried();
}
