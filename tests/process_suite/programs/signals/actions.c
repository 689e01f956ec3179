/* What the kernel holds of all 64, as rt_sigaction(2) tells. */
#include "suite.h"

#include <signal.h>

struct kernel_action {
    void *handler;
    unsigned long flags;
    void *restorer;
    unsigned long mask;
};

static void handler(int signal)
{
    (void)signal;
}

static void look(struct kernel_action *into)
{
    for (int signal = 1; signal <= 64; signal++)
        check(syscall(SYS_rt_sigaction, signal, NULL, &into[signal], 8) == 0);
}

int main(void)
{
    static struct kernel_action before[65], after[65];
    about("all 64 signal actions");
    for (int number = 1; number <= 64; number++) {
        struct sigaction action = {.sa_handler = number % 3 == 0   ? SIG_IGN
                                                 : number % 3 == 1 ? handler
                                                                   : SIG_DFL,
                                   .sa_flags = number % 2 ? SA_RESTART : SA_NODEFER};
        sigaddset(&action.sa_mask, 1 + number % 30);
        sigaction(number, &action, NULL);
    }
    look(before);
    prepare_here();
    look(after);
    for (int number = 1; number <= 64; number++)
        check(memcmp(&before[number], &after[number], sizeof before[0]) == 0);
    return carried();
}
