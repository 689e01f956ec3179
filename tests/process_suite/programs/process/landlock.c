/* No call tells what a process has denied itself, so that nobody can deny it to a child. */
#include "suite.h"

#include <linux/landlock.h>
#include <sys/prctl.h>

int main(void)
{
    struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_REMOVE_FILE};
    about("what a process has denied itself (landlock(7))");
    int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
    if (fd < 0)
        return absent("this kernel knows no landlock");
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    check(syscall(SYS_landlock_restrict_self, fd, 0) == 0 && close(fd) == 0);
    check(unlink(in_folder("kept")) == -1 && errno == EACCES);
    prepare_here();
    if (suite.way == PLAIN) {
        check(unlink(in_folder("kept")) == -1 && errno == EACCES);
        return carried();
    }
    check(unlink(in_folder("kept")) == 0);
    return is_new();
}
