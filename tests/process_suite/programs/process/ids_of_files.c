/* A process that is another user for files (setfsuid(2)) than for all else, and may not be so by itself. */
#include "suite.h"

#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

static void may(unsigned rights)
{
    struct __user_cap_data_struct sets[2] = {{rights, rights, 0}};
    check(syscall(SYS_capset, &header, sets) == 0);
}

int main(void)
{
    struct stat made;
    about("a user of file accesses that is another one");
    const unsigned reach = 1U << CAP_DAC_OVERRIDE;
    check(prctl(PR_SET_KEEPCAPS, 1) == 0 && setresgid(4332, 4332, 4332) == 0);
    check(setresuid(4333, 4333, 4333) == 0);
    may(reach | 1U << CAP_SETUID | 1U << CAP_SETGID);
    setfsuid(4334);
    setfsgid(4335);
    may(reach);
    check(prctl(PR_SET_DUMPABLE, 1) == 0 && setfsuid(-1) == 4334 && setfsgid(-1) == 4335);
    prepare_here();
    check(setfsuid(-1) == 4334 && setfsgid(-1) == 4335 && geteuid() == 4333 && getegid() == 4332);
    close(open(in_folder("made"), O_CREAT | O_RDWR, 0600));
    check(stat(in_folder("made"), &made) == 0 && made.st_uid == 4334 && made.st_gid == 4335);
    return carried();
}
