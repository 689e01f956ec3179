/* What PR_SET_MM_MAP sets: 26 to 28 and 45 to 51 of proc_pid_stat(5). */
#include "suite.h"

static void fields(unsigned long long *into)
{
    static char text[4096];
    read_whole("/proc/self/stat", text, sizeof text);
    char *at = strrchr(text, ')') + 1;
    int field = 3;
    for (char *word = strtok(at, " "); word; word = strtok(NULL, " "), field++)
        if (field <= 52)
            into[field] = strtoull(word, NULL, 10);
}

int main(void)
{
    unsigned long long before[53] = {0}, now[53] = {0};
    const int same[] = {26, 27, 45, 46, 47, 48, 49, 50, 51};
    about("the places of code, data, heap, arguments in /proc/self/stat");
    fields(before);
    prepare_here();
    fields(now);
    for (int at = 0; at < 9; at++) {
        if (now[same[at]] != before[same[at]])
            say("field %d: %llx instead of %llx", same[at], now[same[at]], before[same[at]]);
        check(now[same[at]] == before[same[at]]);
    }
    return carried();
}
