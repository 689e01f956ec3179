/* glibc 2.36 and later; glibc's own looks after forks by MADV_WIPEONFORK, or asks the kernel each time. */
#include "suite.h"

#include <sys/random.h>

#include "siblings.h"

static void draw(unsigned char *bytes)
{
    arc4random_buf(bytes, SIBLING_BYTES / 2);
    check(getrandom(bytes + SIBLING_BYTES / 2, SIBLING_BYTES / 2, 0) == SIBLING_BYTES / 2);
}

int main(void)
{
    unsigned char before[SIBLING_BYTES], after[SIBLING_BYTES];
    about("arc4random(3) and getrandom(2) in children of one seed");
    draw(before);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    if (suite.way != PLAIN)
        siblings_differ(draw);
    prepare_here();
    draw(after);
    check(halves_differ(before, after));
    return suite.way == PLAIN ? carried() : is_new();
}
