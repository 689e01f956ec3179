#include "suite.h"

int main(void)
{
    about("alarm(2)");
    alarm(1000);
    prepare_here();
    unsigned left = alarm(0);
    if (suite.way == FORK) {
        check(left == 0);
        return is_new();
    }
    check(left > 900 && left <= 1000);
    return carried();
}
