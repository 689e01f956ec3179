#include "suite.h"

#include <sys/inotify.h>

int main(void)
{
    char events[4096];
    about("events of an inotify that nobody has read");
    int fd = inotify_init1(IN_NONBLOCK);
    check(fd >= 0 && inotify_add_watch(fd, in_folder(""), IN_CREATE) == 1);
    close(open(in_folder("made"), O_CREAT | O_RDWR, 0600));
    prepare_here_with_files();
    ssize_t got = read(fd, events, sizeof events);
    if (suite.way == PLAIN) {
        check(got > 0);
        return carried();
    }
    check(got == -1 && errno == EAGAIN);
    close(open(in_folder("other"), O_CREAT | O_RDWR, 0600));
    check(read(fd, events, sizeof events) > 0);
    return is_new();
}
