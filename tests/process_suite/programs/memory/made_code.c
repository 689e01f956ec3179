/* Code made before the fork, changed after it. */
#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
    about("code made at run time, in memory that may be written and run");
    unsigned char *area =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(area, code, sizeof code);
    int (*made)(void) = (int (*)(void))area;
    check(made() == 42);
    prepare_here();
    check(made() == 42);
    area[1] = 43;
    check(made() == 43);
    return carried();
}
