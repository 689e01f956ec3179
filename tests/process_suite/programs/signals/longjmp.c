#include "suite.h"

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

int main(void)
{
    sigset_t now;
    about("siglongjmp(3) out of a handler, to before the fork");
    signal(SIGUSR1, handler);
    if (sigsetjmp(back, 1) == 0) {
        prepare_here();
        raise(SIGUSR1);
        check(!"the jump was made");
    }
    sigprocmask(SIG_BLOCK, NULL, &now);
    check(suite.crossed && !sigismember(&now, SIGUSR1));
    return carried();
}
