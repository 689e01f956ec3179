#include "suite.h"

#include <sys/inotify.h>

int main(void)
{
    char events[4096];
    about("an inotify's watches");
    int fd = inotify_init1(IN_NONBLOCK);
    check(fd >= 0 && inotify_add_watch(fd, in_folder(""), IN_CREATE) > 0);
    prepare_here_with_files();
    close(open(in_folder("made"), O_CREAT | O_RDWR, 0600));
    ssize_t got = read(fd, events, sizeof events);
    if (suite.way != PLAIN && got == -1) {
        check(errno == EAGAIN && inotify_add_watch(fd, in_folder(""), IN_CREATE) > 0);
        close(open(in_folder("other"), O_CREAT | O_RDWR, 0600));
        check(read(fd, events, sizeof events) > 0);
        return is_new();
    }
    check(got > 0);
    return carried();
}
