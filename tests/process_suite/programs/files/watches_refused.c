#include "suite.h"

#include <sys/inotify.h>

int main(void)
{
    char events[4096];
    about("events of an inotify that nobody has read, where that is refused");
    int fd = inotify_init1(IN_NONBLOCK);
    check(fd == 3 && inotify_add_watch(fd, in_folder(""), IN_CREATE) == 1);
    close(open(in_folder("made"), O_CREAT | O_RDWR, 0600));
    prepare_here_refusing(MITOSIS_LOSS_WATCHES);
    check(read(fd, events, sizeof events) > 0);
    return carried();
}
