/* The first child has it from its image, as its parent wrote it, the child itself, or as the file is. */
#include "suite.h"

#include <sys/mman.h>

static const char *const own[] = {"page0", "page1", "page2", "page3"};

static bool shows(const char *area, const char *const texts[4])
{
    for (int page = 0; page < 4; page++)
        if (memcmp(area + (page << 12), texts[page], 5) != 0)
            return false;
    return true;
}

static bool drop(char *area, int page)
{
    return madvise(area + (page << 12), 4096, MADV_DONTNEED) == 0;
}

/* Of one file, whose parts are neighbours in the image and not in the file; of another nobody writes before the child. */
static char *mapped(const char *name, bool is_turned)
{
    int fd = open(in_folder(name), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4 << 12) == 0);
    for (int page = 0; page < 4; page++)
        check(pwrite(fd, own[is_turned ? page ^ 2 : page], 5, page << 12) == 5);
    char *area = mmap(NULL, 4 << 12, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rights = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_FIXED;
    for (int half = 0; half < 2; half++)
        check(mmap(area + (half << 13), 2 << 12, rights, flags, fd, (half ^ is_turned) << 13) !=
            MAP_FAILED);
    close(fd);
    return area;
}

int main(void)
{
    about("MADV_DONTNEED of a private page of a file, in a child of a child");
    char *area = mapped("mapped", true), *clean = mapped("clean", false);
    char *before = mapped("before", false);
    memcpy(before, "OTHER", 5);
    memcpy(area, "OTHER", 5);
    memcpy(area + (3 << 12), "OTHER", 5);
    prepare_here();
    memcpy(area + (1 << 12), "CHILD", 5);
    memcpy(clean + (2 << 12), "CHILD", 5);
    check(drop(area, 3));
    prepare_here();
    check(shows(area, (const char *const[]){"OTHER", "CHILD", own[2], own[3]}));
    check(shows(clean, (const char *const[]){own[0], own[1], "CHILD", own[3]}));
    check(shows(before, (const char *const[]){"OTHER", own[1], own[2], own[3]}));
    for (int page = 0; page < 4; page++)
        check(drop(area, page) && drop(clean, page) && drop(before, page));
    check(shows(area, own) && shows(clean, own) && shows(before, own));
    /* And again, of what was written since. */
    memcpy(area, "AGAIN", 5);
    memcpy(clean, "AGAIN", 5);
    prepare_here();
    check(memcmp(area, "AGAIN", 5) == 0 && memcmp(clean, "AGAIN", 5) == 0);
    check(drop(area, 0) && drop(clean, 0));
    check(shows(area, own) && shows(clean, own));
    return carried();
}
