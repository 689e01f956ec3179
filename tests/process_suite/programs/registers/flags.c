/* RFLAGS.AC: SMAP aside, user code may set it, and a call keeps it. */
#include "suite.h"

int main(void)
{
    unsigned long flags = 0;
    about("RFLAGS of interrupted code");
    asm volatile("pushfq; popq %0" : "=r"(flags));
    /* ID, which only says that it can be changed. */
    flags ^= 1UL << 21;
    asm volatile("pushq %0; popfq" : : "r"(flags) : "cc");
    prepare_here();
    unsigned long now = 0;
    asm volatile("pushfq; popq %0" : "=r"(now));
    check((now & 1UL << 21) == (flags & 1UL << 21));
    return carried();
}
