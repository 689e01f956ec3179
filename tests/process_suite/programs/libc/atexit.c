/* Handlers that were registered before and after the fork run in the child, in reverse order. */
#include "suite.h"

static int stage;

static void last(void)
{
    check(stage == 2);
    carried();
}

static void middle(void)
{
    check(stage++ == 1);
}

static void first(void)
{
    check(stage++ == 0);
}

int main(void)
{
    about("atexit(3) handlers");
    atexit(last);
    atexit(middle);
    prepare_here();
    atexit(first);
    return 0;
}
