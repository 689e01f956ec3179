/* A root of which the child's host has nothing: it must not get another one. */
#include "suite.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void show(const char *place, const char *as)
{
    check(mkdir(in_folder(as), 0700) == 0);
    check(mount(place, in_folder(as), NULL, MS_BIND, NULL) == 0);
}

int main(void)
{
    about("a root directory that the child's host has not");
    check(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    check(mkdir(in_folder("jail"), 0700) == 0 && mkdir(in_folder("jail/run"), 0700) == 0);
    show("/run/mitosis", "jail/run/mitosis");
    show("/proc", "jail/proc");
    show("/dev", "jail/dev");
    check(chroot(in_folder("jail")) == 0 && chdir("/") == 0);
    prepare_here();
    return carried();
}
