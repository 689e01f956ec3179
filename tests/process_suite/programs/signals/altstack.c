#include "suite.h"

#include <signal.h>

static char stack[65536];
static volatile sig_atomic_t on_it;

static void handler(int signal)
{
    char here;
    (void)signal;
    on_it = &here >= stack && &here < stack + sizeof stack;
}

int main(void)
{
    stack_t now, alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    about("the alternative signal stack");
    sigaltstack(&alternative, NULL);
    sigaction(SIGUSR1, &action, NULL);
    prepare_here();
    check(sigaltstack(NULL, &now) == 0 && now.ss_sp == stack && now.ss_size == sizeof stack);
    check(now.ss_flags == 0);
    raise(SIGUSR1);
    check(on_it == 1);
    return carried();
}
