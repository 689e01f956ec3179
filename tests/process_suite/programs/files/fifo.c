#include "suite.h"

#include <sys/stat.h>

int main(void)
{
    char text[16] = {0};
    about("a fifo with a name, and what lies in it");
    check(mkfifo(in_folder("fifo"), 0600) == 0);
    int fd = open(in_folder("fifo"), O_RDWR | O_NONBLOCK);
    check(fd >= 0 && write(fd, "in it", 5) == 5);
    prepare_here_with_files();
    check(read(fd, text, 15) == 5 && strcmp(text, "in it") == 0);
    check(write(fd, "more", 4) == 4 && read(fd, text, 15) == 4);
    return carried();
}
