#include "suite.h"

#include <signal.h>

int main(void)
{
    struct sigaction now;
    about("ignored signals");
    signal(SIGTERM, SIG_IGN);
    signal(SIGRTMIN + 3, SIG_IGN);
    prepare_here();
    check(raise(SIGTERM) == 0 && raise(SIGRTMIN + 3) == 0);
    check(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_IGN);
    return carried();
}
