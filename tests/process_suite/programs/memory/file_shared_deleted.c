/* Its bytes are there, and the child is told that it is a copy: nobody has the file by its name. One that is open and carried
 * is the child's as its memory is, and nothing is told. */
#include "suite.h"

#include <sys/mman.h>

static char *deleted(const char *name, bool stays_open)
{
    int fd = open(in_folder(name), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4096) == 0);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(area != MAP_FAILED && unlink(in_folder(name)) == 0);
    memcpy(area, name, 4);
    if (!stays_open)
        close(fd);
    return area;
}

int main(void)
{
    about("a deleted file mapped shared");
    char *area = deleted("gone", false), *carried_too = deleted("open", true);
    prepare_here_with_files();
    check(memcmp(area, "gone", 4) == 0 && memcmp(carried_too, "open", 4) == 0);
    memcpy(area, "GONE", 4);
    check(msync(area, 4096, MS_SYNC) == 0 && memcmp(area, "GONE", 4) == 0);
    if (suite.way == PLAIN)
        return carried();
    int told = 0;
    char was[300];
    snprintf(was, sizeof was, "%s (deleted)", in_folder("gone"));
    mitosis_loss loss = {.size = sizeof loss};
    for (size_t at = 0; mitosis_lost(at, &loss) == MITOSIS_OK; at++)
        if (loss.kind == MITOSIS_LOSS_SHARED_FILES) {
            check(loss.fd == -1 && strcmp(loss.was, was) == 0);
            told++;
        }
    check(told == 1);
    return is_new();
}
