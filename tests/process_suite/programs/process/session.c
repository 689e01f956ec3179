/* A session and a process group of its own, without a terminal: no signal to a group reaches a
 * sibling. */
#include "suite.h"

int main(void)
{
    about("session and process group");
    pid_t session = getsid(0), group = getpgrp();
    prepare_here();
    if (suite.way != PLAIN) {
        check(getsid(0) == getpid() && getpgrp() == getpid());
        check(open("/dev/tty", O_RDWR) == -1);
        return is_new();
    }
    check(getsid(0) == session && getpgrp() == group);
    return carried();
}
