/* Forks on the alternative stack, and returns from there. */
#include "suite.h"

#include <signal.h>

static char stack[1 << 18];

static void handler(int signal)
{
    stack_t now;
    (void)signal;
    prepare_here();
    check(sigaltstack(NULL, &now) == 0 && now.ss_flags == SS_ONSTACK && now.ss_sp == stack);
}

int main(void)
{
    stack_t now, alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    about("a fork on the alternative signal stack");
    sigaltstack(&alternative, NULL);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    check(suite.crossed && sigaltstack(NULL, &now) == 0 && now.ss_flags == 0);
    return carried();
}
