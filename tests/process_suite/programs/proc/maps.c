/* Each mapping is where it was, with the protection that it had; more may be there (Mitosis's
 * own). */
#include "suite.h"

#include <ctype.h>

static char before[65536], after[65536];

static bool has(const char *maps, const char *line)
{
    /* Of "start-end perms ..." the start and the protection: neighbours may be cut otherwise. */
    char start[32];
    unsigned long from = strtoul(line, NULL, 16), begin, end;
    char access[8], wanted[8];
    sscanf(line, "%31[^-]-%*x %4s", start, wanted);
    for (const char *at = maps; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : at)
        if (sscanf(at, "%lx-%lx %4s", &begin, &end, access) == 3 && begin <= from && from < end)
            return strncmp(access, wanted, 3) == 0;
    return false;
}

int main(void)
{
    about("/proc/self/maps: places and protections");
    read_whole("/proc/self/maps", before, sizeof before);
    prepare_here();
    read_whole("/proc/self/maps", after, sizeof after);
    for (char *line = before; line && *line;
        line = strchr(line, '\n'), line = line ? line + 1 : line) {
        char *end = strchr(line, '\n');
        if (end && strstr(line, "[v") && strstr(line, "[v") < end)
            continue;
        if (!has(after, line))
            say("%.*s", (int)(end - line), line);
        check(has(after, line));
    }
    return carried();
}
