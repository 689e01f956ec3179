/* A function of a library that is called for the first time after the fork: its symbol is looked
 * up there. */
#include "suite.h"

#include <math.h>
#include <search.h>

int main(void)
{
    volatile double number = 2;
    about("symbols that are bound after the fork");
    prepare_here();
    check(lgamma(number) < 1e-9 && cbrt(number * 4) > 1.99);
    check(hcreate(10) != 0);
    hdestroy();
    return carried();
}
