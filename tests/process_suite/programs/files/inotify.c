/* Watches of directories and of a file, with numbers between that are nobody's, and one that its host has not. */
#include "suite.h"

#include <sys/inotify.h>
#include <sys/stat.h>

static int inotify;

/* The next event: of this watch, of this kind, by this name; a watch of 0: there is none. */
static bool next_is(int watch, uint32_t mask, const char *name)
{
    static char events[4096] __attribute__((aligned(8)));
    static ssize_t have, at;
    if (at == have) {
        at = 0;
        have = read(inotify, events, sizeof events);
        if (have == -1) {
            have = 0;
            return watch == 0 && errno == EAGAIN;
        }
    }
    struct inotify_event *event = (struct inotify_event *)(events + at);
    at += (ssize_t)sizeof *event + event->len;
    return event->wd == watch && (event->mask & mask) && strcmp(event->len ? event->name : "", name) == 0;
}

int main(void)
{
    about("an inotify's watches, by their numbers, of what is on the child's host");
    char inner[256];
    snprintf(inner, sizeof inner, "%s", in_folder("inner"));
    check(mkdir(inner, 0700) == 0 || errno == EEXIST);
    int own = open(in_folder("own"), O_CREAT | O_RDWR, 0600);
    inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    check(inotify >= 0 && own >= 0 && inotify_add_watch(inotify, in_folder(""), IN_CREATE | IN_DELETE) == 1);
    check(inotify_add_watch(inotify, "/", IN_CREATE) == 2 && inotify_rm_watch(inotify, 2) == 0);
    check(inotify_add_watch(inotify, inner, IN_CREATE) == 3);
    for (int number = 4; number < 300; number++)
        check(inotify_add_watch(inotify, "/", IN_CREATE) == number && inotify_rm_watch(inotify, number) == 0);
    check(inotify_add_watch(inotify, in_folder("kept"), IN_OPEN) == 300);
    while (read(inotify, (char[4096]){0}, 4096) > 0)
        ;
    prepare_here_with_files();
    check(next_is(0, 0, ""));
    close(open(in_folder("made"), O_CREAT | O_RDWR, 0600));
    check(next_is(1, IN_CREATE, "made"));
    close(open(in_folder("kept"), O_RDONLY));
    check(next_is(300, IN_OPEN, "") && next_is(0, 0, ""));
    check(fcntl(inotify, F_GETFL) & O_NONBLOCK && fcntl(inotify, F_GETFD) == FD_CLOEXEC);
    check(inotify_add_watch(inotify, in_folder(""), IN_CREATE) == 1);
    /* The directory is not on the other host: nobody watches there, and its number is nobody else's. */
    bool is_here = access(inner, F_OK) == 0;
    check(is_here == (suite.way == PLAIN));
    check(inotify_rm_watch(inotify, 3) == (is_here ? 0 : -1));
    check(inotify_add_watch(inotify, "/", IN_CREATE) == 301);
    return carried();
}
