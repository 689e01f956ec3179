#include "suite.h"

#include <ucontext.h>

static ucontext_t outside, inside;
static volatile int turns;

static void body(void)
{
    turns++;
    swapcontext(&inside, &outside);
    prepare_here();
    turns++;
}

int main(void)
{
    static char stack[1 << 18];
    about("contexts of makecontext(3), and a fork on one of their stacks");
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = sizeof stack;
    inside.uc_link = &outside;
    makecontext(&inside, body, 0);
    swapcontext(&outside, &inside);
    check(turns == 1);
    swapcontext(&outside, &inside);
    check(turns == 2 && suite.crossed);
    return carried();
}
