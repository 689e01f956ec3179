#include "suite.h"

#include <stdint.h>

/* The registers that a call keeps, around the call that forks. */
__attribute__((noinline)) static void cross(uint64_t *out)
{
    register uint64_t r12 asm("r12") = 0x1212121212121212, r13 asm("r13") = 0x1313131313131313;
    register uint64_t r14 asm("r14") = 0x1414141414141414, r15 asm("r15") = 0x1515151515151515;
    asm volatile("" : "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15));
    prepare_here();
    asm volatile("" : "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15));
    out[0] = r12, out[1] = r13, out[2] = r14, out[3] = r15;
}

int main(void)
{
    uint64_t out[4];
    about("general-purpose registers");
    cross(out);
    check(out[0] == 0x1212121212121212 && out[1] == 0x1313131313131313);
    check(out[2] == 0x1414141414141414 && out[3] == 0x1515151515151515);
    return carried();
}
