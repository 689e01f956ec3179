/* A process that has changed its root before the fork; the agent's socket, /proc and /dev are in
 * the new one. The mounts are those of a namespace of its own. */
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
    about("root directory (chroot(2))");
    check(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    check(mkdir(in_folder("run"), 0700) == 0);
    show("/run/mitosis", "run/mitosis");
    show("/proc", "proc");
    show("/dev", "dev");
    check(chroot(in_folder("")) == 0 && chdir("/") == 0);
    check(access("/kept", R_OK) == 0);
    prepare_here();
    check(access("/kept", R_OK) == 0 && access("/bin", F_OK) == -1);
    return carried();
}
