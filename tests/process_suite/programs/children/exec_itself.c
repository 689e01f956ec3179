/* The child becomes another program, with what exec(2) keeps. */
#include "suite.h"

#include <signal.h>

int main(void)
{
    about("exec(2) of the child itself");
    signal(SIGUSR1, SIG_IGN);
    prepare_here();
    execl("/bin/sh", "sh", "-c", "kill -USR1 $$ && echo 'carried: exec(2) of the child itself'",
        NULL);
    check(!"exec succeeded");
    return 1;
}
