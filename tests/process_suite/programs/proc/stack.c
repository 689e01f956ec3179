#include "suite.h"

int main(void)
{
    int here = 0;
    about("[stack] in /proc/self/maps");
    prepare_here();
    check(is_in("[stack]", &here));
    return carried();
}
