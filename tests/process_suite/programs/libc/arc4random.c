/* glibc 2.36 and later; glibc's own looks after forks by MADV_WIPEONFORK, or asks the kernel each
 * time. */
#include "suite.h"

#include <sys/random.h>

int main(void)
{
    unsigned char before[32], same[32];
    about("arc4random(3) and getrandom(2) give each child its own");
    arc4random_buf(before, sizeof before);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    prepare_here();
    arc4random_buf(same, sizeof same);
    check(memcmp(before, same, sizeof same) != 0);
    check(getrandom(before, sizeof before, 0) == sizeof before &&
        memcmp(before, same, sizeof same) != 0);
    return carried();
}
