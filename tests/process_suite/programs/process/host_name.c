#include "suite.h"

int main(void)
{
    char before[65], now[65];
    about("host name");
    check(gethostname(before, sizeof before) == 0);
    prepare_here();
    check(gethostname(now, sizeof now) == 0);
    if (suite.way != PLAIN) {
        check(strcmp(now, getenv("SUITE_HOST")) == 0);
        return is_new();
    }
    check(strcmp(now, before) == 0);
    return carried();
}
