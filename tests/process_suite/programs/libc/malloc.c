#include "suite.h"

int main(void)
{
    static char *pieces[2000];
    about("the heap of malloc(3): free, grow, trim");
    for (int at = 0; at < 2000; at++) {
        size_t size = 16 + (size_t)(at * 37 % 3000);
        pieces[at] = malloc(size);
        memset(pieces[at], at, size);
    }
    for (int at = 0; at < 2000; at += 3)
        free(pieces[at]), pieces[at] = NULL;
    char *large = malloc(4 << 20);
    memset(large, 6, 4 << 20);
    prepare_here();
    for (int at = 0; at < 2000; at++)
        if (pieces[at])
            check(pieces[at][at * 37 % 3000 + 15] == (char)at);
    large = realloc(large, 16 << 20);
    check(large[0] == 6 && large[(4 << 20) - 1] == 6);
    large[(16 << 20) - 1] = 1;
    free(large);
    for (int at = 0; at < 2000; at++)
        pieces[at] = realloc(pieces[at], 5000), check(pieces[at] != NULL);
    for (int at = 0; at < 2000; at++)
        free(pieces[at]);
    return carried();
}
