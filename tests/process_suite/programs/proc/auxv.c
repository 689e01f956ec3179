#include "suite.h"

#include <elf.h>
#include <sys/auxv.h>

/* But for what is another host's: where the vDSO is stays, as all addresses do. */
int main(void)
{
    static char before[4096], now[4096];
    about("/proc/self/auxv and getauxval(3)");
    size_t length = read_whole("/proc/self/auxv", before, sizeof before);
    unsigned long entry = getauxval(AT_ENTRY), random = getauxval(AT_RANDOM);
    unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
    prepare_here();
    check(getauxval(AT_ENTRY) == entry && getauxval(AT_RANDOM) == random &&
        getauxval(AT_PAGESZ) == 4096);
    check(vdso != 0 && memcmp((void *)vdso, ELFMAG, SELFMAG) == 0);
    check(read_whole("/proc/self/auxv", now, sizeof now) == length && length > 100);
    check(memcmp(before, now, length) == 0);
    return carried();
}
