/* The canary of stacks and the guard of pointers, which code of before and after the fork must
 * share. */
#include "suite.h"

#include <setjmp.h>

static jmp_buf saved;
static volatile int passed;

static unsigned long canary(void)
{
    unsigned long value;
    asm volatile("movq %%fs:0x28, %0" : "=r"(value));
    return value;
}

static unsigned long guard(void)
{
    unsigned long value;
    asm volatile("movq %%fs:0x30, %0" : "=r"(value));
    return value;
}

int main(void)
{
    about("stack canary and pointer guard");
    unsigned long before = canary(), mangled = guard();
    if (setjmp(saved) == 0) {
        prepare_here();
        passed = 1;
        longjmp(saved, 1);
    }
    check(passed == 1 && canary() == before && guard() == mangled && before != 0);
    return carried();
}
