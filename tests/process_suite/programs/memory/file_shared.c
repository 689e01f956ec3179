/* A file mapped shared: its bytes cross, its writes reach no file of the child's host. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    char text[32] = {0};
    about("a file mapped shared");
    int fd = open(in_folder("kept"), O_RDWR);
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    memcpy(area, "THE", 3);
    prepare_here();
    check(memcmp(area, "THE file", 8) == 0);
    memcpy(area + 4, "FILE", 4);
    check(msync(area, 4096, MS_SYNC) == 0);
    read_whole(in_folder("kept"), text, sizeof text);
    if (suite.way != PLAIN) {
        check(strcmp(text, "the file's text\n") == 0);
        return is_new();
    }
    check(strcmp(text, "THE FILE's text\n") == 0);
    return carried();
}
