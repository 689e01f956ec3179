/* It is whom its parent was, with the same rights, in a user namespace of its own; outside it is somebody else. */
#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    static const char *const map[] = {"0:100000:65536", NULL};
    char text[128];
    unsigned inside, outside, count;
    about("user and group ids in a user namespace that the resumer maps");
    check(getuid() == 0 && getgid() == 0);
    suite.id_map = map;
    int fd = open(in_folder("kept"), O_RDONLY);
    check(fd >= 0);
    prepare_here_with_files();
    if (suite.way == PLAIN)
        return carried();
    read_whole("/proc/self/uid_map", text, sizeof text);
    check(sscanf(text, "%u %u %u", &inside, &outside, &count) == 3);
    check(inside == 0 && outside == 100000 && count == 65536);
    read_whole("/proc/self/gid_map", text, sizeof text);
    check(sscanf(text, "%u %u %u", &inside, &outside, &count) == 3 && outside == 100000);
    check(getuid() == 0 && geteuid() == 0 && getgid() == 0);
    /* What was opened before is there, and what is root's alone no more. */
    check(read(fd, text, 4) == 4 && !memcmp(text, "the ", 4));
    check(open(in_folder("kept"), O_RDWR) == -1 && errno == EACCES);
    check(sethostname("x", 1) == -1 && errno == EPERM);
    check(setuid(70000) == -1 && errno == EINVAL);
    int signal = 0;
    check(prctl(PR_GET_PDEATHSIG, &signal) == 0 && signal == SIGKILL);
    check(prctl(PR_GET_DUMPABLE) == 1);
    /* Inside it has what its parent had. */
    check(setgid(6) == 0 && setuid(5) == 0 && getuid() == 5 && setuid(0) == -1);
    return is_new();
}
