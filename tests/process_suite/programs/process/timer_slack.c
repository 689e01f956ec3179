#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    about("timer slack");
    check(prctl(PR_SET_TIMERSLACK, 123456) == 0);
    prepare_here();
    check(prctl(PR_GET_TIMERSLACK) == 123456);
    return carried();
}
