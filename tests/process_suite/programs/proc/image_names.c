/* The mapping of the program's own code: its name is an image's, the root of its mount, for the
 * child's host has no such file. */
#include "suite.h"

/* The line of /proc/self/maps that has `address`. */
static const char *mapping_of(uintptr_t address)
{
    static char maps[65536];
    read_whole("/proc/self/maps", maps, sizeof maps);
    for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long start, end;
        check(sscanf(line, "%lx-%lx", &start, &end) == 2);
        if (start <= address && address < end)
            return line;
    }
    return "";
}

int main(void)
{
    static char link[512];
    about("names of file mappings in /proc/self/maps");
    check(readlink("/proc/self/exe", link, sizeof link - 1) > 0);
    prepare_here();
    const char *line = mapping_of((uintptr_t)main);
    bool is_named = strstr(line, link) != NULL;
    if (suite.way == PLAIN) {
        check(is_named);
        return carried();
    }
    const char *name = strrchr(line, ' ');
    check(!is_named && name && strcmp(name, " /") == 0);
    return is_new();
}
