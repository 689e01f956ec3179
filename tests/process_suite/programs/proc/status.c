#include "suite.h"

#include <signal.h>

int main(void)
{
    char blocked[64], caught[64], ignored[64];
    sigset_t set;
    about("signals in /proc/self/status");
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGUSR2, SIG_IGN);
    strcpy(blocked, status_of("SigBlk"));
    strcpy(caught, status_of("SigCgt"));
    strcpy(ignored, status_of("SigIgn"));
    prepare_here();
    check(strcmp(status_of("SigBlk"), blocked) == 0);
    check(strcmp(status_of("SigCgt"), caught) == 0);
    check(strcmp(status_of("SigIgn"), ignored) == 0);
    check(strcmp(status_of("Threads"), "1") == 0);
    return carried();
}
