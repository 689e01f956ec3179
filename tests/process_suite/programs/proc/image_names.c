/* Mappings of the program's file: their name is an image's, or the file's where this host has the
 * same one. */
#include "suite.h"

int main(void)
{
    static char maps[65536], link[512];
    about("names of file mappings in /proc/self/maps");
    check(readlink("/proc/self/exe", link, sizeof link - 1) > 0);
    prepare_here();
    read_whole("/proc/self/maps", maps, sizeof maps);
    if (suite.way != PLAIN) {
        check(strstr(maps, "mitosis") != NULL);
        return is_new();
    }
    check(strstr(maps, link) != NULL);
    return carried();
}
