/* RLIMIT_STACK acts on the main thread's stack, as it was set before the fork. */
#include "suite.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

__attribute__((noinline)) static int descend(int frames)
{
    volatile char frame[4096];
    frame[0] = (char)frames;
    return frames == 0 ? frame[0] : descend(frames - 1) + frame[0];
}

int main(void)
{
    static char stack[65536];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    struct rlimit limit;
    about("the limit of the stack acts");
    sigaltstack(&alternative, NULL);
    sigaction(SIGSEGV, &action, NULL);
    getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = 2 << 20;
    check(setrlimit(RLIMIT_STACK, &limit) == 0);
    prepare_here();
    descend(300);
    if (sigsetjmp(back, 1) == 0) {
        descend(700);
        check(!"the stack grew beyond its limit");
    }
    return carried();
}
