/* PR_SET_VMA_ANON_NAME: a name in maps. */
#include "suite.h"

#include <sys/mman.h>
#include <sys/prctl.h>

int main(void)
{
    static char maps[65536];
    about("names of anonymous memory (PR_SET_VMA_ANON_NAME)");
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area[0] = 5;
    if (prctl(0x53564d41, 0, area, 4096, "suite's own") != 0)
        return absent("PR_SET_VMA_ANON_NAME");
    prepare_here();
    check(area[0] == 5);
    read_whole("/proc/self/maps", maps, sizeof maps);
    check(strstr(maps, "[anon:suite's own]") != NULL);
    return carried();
}
