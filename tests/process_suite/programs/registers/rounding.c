#include "suite.h"

#include <fenv.h>

int main(void)
{
    volatile double one = 1, three = 3;
    about("rounding mode of fesetround(3)");
    fesetround(FE_UPWARD);
    double up = one / three;
    prepare_here();
    check(fegetround() == FE_UPWARD && one / three == up);
    fesetround(FE_DOWNWARD);
    check(one / three < up);
    return carried();
}
