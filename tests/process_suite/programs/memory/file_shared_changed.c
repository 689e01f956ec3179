/* The parent has written to it, so that the child's host has another one: the child is told. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    char text[32] = {0};
    about("a file mapped shared, which the child's host has not, or with other bytes");
    int fd = open(in_folder("kept"), O_RDWR);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    fd = open(in_folder("missing"), O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, 4096) == 0);
    char *missing = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    check(area != MAP_FAILED && missing != MAP_FAILED);
    memcpy(area, "THE", 3);
    memcpy(missing, "here", 4);
    prepare_here();
    check(memcmp(area, "THE file", 8) == 0 && memcmp(missing, "here", 4) == 0);
    memcpy(area + 4, "FILE", 4);
    check(msync(area, 4096, MS_SYNC) == 0);
    read_whole(in_folder("kept"), text, sizeof text);
    if (suite.way == PLAIN) {
        check(strcmp(text, "THE FILE's text\n") == 0);
        return carried();
    }
    check(strcmp(text, "the file's text\n") == 0);
    bool told[2] = {false, false};
    mitosis_loss loss = {.size = sizeof loss};
    for (size_t at = 0; mitosis_lost(at, &loss) == MITOSIS_OK; at++) {
        if (loss.kind != MITOSIS_LOSS_SHARED_FILES)
            continue;
        check(loss.fd == -1);
        told[0] |= strcmp(loss.was, in_folder("kept")) == 0;
        told[1] |= strcmp(loss.was, in_folder("missing")) == 0;
    }
    check(told[0] && told[1]);
    return is_new();
}
