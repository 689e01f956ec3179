#include "suite.h"

#include <sys/stat.h>

int main(void)
{
    char text[64];
    about("a file that is appended to (O_APPEND)");
    int fd = open(in_folder("kept"), O_WRONLY | O_APPEND);
    prepare_here_with_files();
    check(fcntl(fd, F_GETFL) & O_APPEND);
    check(lseek(fd, 0, SEEK_SET) == 0 && write(fd, "more\n", 5) == 5);
    read_whole(in_folder("kept"), text, sizeof text);
    check(strcmp(text, "the file's text\nmore\n") == 0);
    return carried();
}
