#include "suite.h"

#include <setjmp.h>

static jmp_buf back;

static void deeper(int levels)
{
    volatile char frame[2000];
    frame[levels] = 1;
    if (levels > 0)
        deeper(levels - 1);
    else
        prepare_here();
    if (levels == 0)
        longjmp(back, frame[levels] + 4);
}

int main(void)
{
    about("longjmp(3) from after the fork to before it");
    int got = setjmp(back);
    if (got == 0)
        deeper(40);
    check(got == 5 && suite.crossed);
    return carried();
}
