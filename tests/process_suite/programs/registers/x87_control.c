#include "suite.h"

int main(void)
{
    unsigned short wanted = 0x0e7f, now = 0;
    about("x87 control word");
    asm volatile("fldcw %0" : : "m"(wanted));
    prepare_here();
    asm volatile("fnstcw %0" : "=m"(now));
    check(now == wanted || now == (wanted | 0x40));
    return carried();
}
