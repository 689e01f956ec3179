#include "suite.h"

static bool is_in(const char *name, const void *address)
{
    static char maps[65536];
    unsigned long begin, end, at = (unsigned long)address;
    read_whole("/proc/self/maps", maps, sizeof maps);
    for (char *line = maps; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : line)
        if (sscanf(line, "%lx-%lx", &begin, &end) == 2 && begin <= at && at < end) {
            char *stop = strchr(line, '\n'), *found = strstr(line, name);
            return found && found < stop;
        }
    return false;
}

int main(void)
{
    int here = 0;
    about("[heap] and [stack] in /proc/self/maps");
    void *heap = malloc(100);
    prepare_here();
    check(is_in("[heap]", heap));
    check(is_in("[stack]", &here));
    free(heap);
    return carried();
}
