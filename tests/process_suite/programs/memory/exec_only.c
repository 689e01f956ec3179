#include "suite.h"

#include <sys/mman.h>

int main(void)
{
    /* mov eax, 42; ret */
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
    about("code that may be run and not read (PROT_EXEC)");
    unsigned char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
        0);
    memcpy(area, code, sizeof code);
    check(mprotect(area, 4096, PROT_EXEC) == 0);
    int (*made)(void) = (int (*)(void))area;
    prepare_here();
    check(made() == 42);
    check(mprotect(area, 4096, PROT_READ | PROT_EXEC) == 0 && memcmp(area, code, sizeof code) == 0);
    return carried();
}
