/* A child is told what it is: a number among its siblings, a generation, a host. */
#include "suite.h"

int main(void)
{
    about("generation, index and host, as mitosis.h tells");
    check(mitosis_generation() == 0);
    prepare_here();
    if (suite.way != PLAIN) {
        check(mitosis_generation() == 1 && mitosis_child_index() == 0);
        return is_new();
    }
    return carried();
}
