/* MADV_DONTNEED of a page of a file that was written: the file's bytes are there again. One of the files the
 * child's host has, too; the other it has not. */
#include "suite.h"

#include <sys/mman.h>

static char *mapped(int fd, size_t pages)
{
    void *area = mmap(NULL, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    check(area != MAP_FAILED);
    return area;
}

static void drop(char *area, size_t pages)
{
    check(madvise(area, pages << 12, MADV_DONTNEED) == 0);
}

int main(void)
{
    char kept[8] = "";
    about("MADV_DONTNEED of a private page of a file");
    int fd = open(in_folder("mapped"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4 << 12) == 0 && pwrite(fd, "first", 5, 0) == 5);
    check(pwrite(fd, "third", 5, 2 << 12) == 5);
    char *area = mapped(fd, 4), *moved = mapped(fd, 4), *left = mapped(fd, 1);
    int kept_fd = open(in_folder("kept"), O_RDONLY);
    check(kept_fd >= 0 && pread(kept_fd, kept, 4, 0) == 4);
    char *both = mapped(kept_fd, 1);
    memcpy(area, "OTHER", 5);
    memcpy(area + (2 << 12), "OTHER", 5);
    memcpy(moved, "OTHER", 5);
    memcpy(left, "OTHER", 5);
    memcpy(both, "OTHER", 5);
    prepare_here();
    check(memcmp(area, "OTHER", 5) == 0 && memcmp(both, "OTHER", 5) == 0);
    /* One page, and only that one; written and dropped again; and the rest. */
    drop(area, 1);
    check(memcmp(area, "first", 5) == 0 && memcmp(area + (2 << 12), "OTHER", 5) == 0);
    memcpy(area, "AGAIN", 5);
    drop(area, 1);
    check(memcmp(area, "first", 5) == 0);
    drop(area, 4);
    check(memcmp(area, "first", 5) == 0 && memcmp(area + (2 << 12), "third", 5) == 0);
    check(area[1 << 12] == 0 && area[3 << 12] == 0);
    /* What cannot be written stays so. */
    check(mprotect(both, 4096, PROT_READ) == 0);
    drop(both, 1);
    check(memcmp(both, kept, 4) == 0);
    check(read(open("/dev/zero", O_RDONLY), both, 1) == -1 && errno == EFAULT);
    /* Elsewhere, and where it was. */
    char *there = mremap(moved, 4 << 12, 4 << 12, MREMAP_MAYMOVE | MREMAP_FIXED,
        mmap(NULL, 4 << 12, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    check(there != MAP_FAILED && memcmp(there, "OTHER", 5) == 0);
    drop(there, 4);
    check(memcmp(there, "first", 5) == 0 && memcmp(there + (2 << 12), "third", 5) == 0);
    there = mremap(left, 4096, 4096, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    check(there != MAP_FAILED && memcmp(there, "OTHER", 5) == 0);
    check(memcmp(left, "first", 5) == 0);
    /* In a process of its own, too. */
    memcpy(area, "OTHER", 5);
    pid_t pid = fork();
    if (pid == 0) {
        drop(there, 1);
        drop(area, 1);
        _exit(memcmp(there, "first", 5) || memcmp(area, "first", 5));
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0 && memcmp(area, "OTHER", 5) == 0);
    return carried();
}
