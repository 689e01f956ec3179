/* As setproctitle does it: over argv, and beyond it over environ. */
#include "suite.h"

int main(int count, char **arguments)
{
    static char now[8192];
    (void)count;
    about("a title written over argv");
    extern char **environ;
    size_t room = 0;
    for (char **at = environ; *at; at++)
        room = (size_t)(*at + strlen(*at) + 1 - arguments[0]);
    char *title = calloc(1, room);
    memset(title, 't', strlen(arguments[0]) - 1);
    /* Environment elsewhere first. */
    for (char **at = environ; *at; at++)
        *at = strdup(*at);
    memset(arguments[0], 0, strlen(arguments[0]));
    strcpy(arguments[0], title);
    prepare_here();
    size_t length = read_whole("/proc/self/cmdline", now, sizeof now);
    check(length > strlen(title) && strcmp(now, title) == 0);
    /* And once more, in the child. */
    strcpy(arguments[0], "child");
    read_whole("/proc/self/cmdline", now, sizeof now);
    check(strcmp(now, "child") == 0);
    return carried();
}
