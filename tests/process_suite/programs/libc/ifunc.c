/* An indirect function, chosen before main and called after the fork, and libc's own of this
 * kind. */
#include "suite.h"

static int chosen(int number)
{
    return number * 2;
}

static int (*choose(void))(int)
{
    return chosen;
}

int doubled(int number) __attribute__((ifunc("choose")));

int main(void)
{
    char text[200], copy[200];
    about("indirect functions (IFUNC)");
    prepare_here();
    check(doubled(21) == 42);
    memset(text, 'x', sizeof text);
    text[199] = 0;
    check(strlen(text) == 199 && memcmp(memcpy(copy, text, 200), text, 200) == 0);
    check(strchr(text, 'y') == NULL && memchr(text, 0, 200) == text + 199);
    return carried();
}
