/* feenableexcept(3): a division by zero is a signal, in the child, too. */
#include "suite.h"

#include <fenv.h>
#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

int main(void)
{
    volatile double one = 1, zero = 0;
    about("floating-point exceptions that trap");
    signal(SIGFPE, handler);
    feenableexcept(FE_DIVBYZERO);
    prepare_here();
    check(fegetexcept() == FE_DIVBYZERO);
    if (sigsetjmp(back, 1) == 0) {
        volatile double result = one / zero;
        (void)result;
        check(!"a division by zero went through");
    }
    return carried();
}
