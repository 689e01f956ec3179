#include "suite.h"

#include <sys/time.h>

int main(void)
{
    struct itimerval virtual = {.it_value = {50, 0}},
        of_both = {.it_value = {60, 0}, .it_interval = {3, 0}}, now;
    about("setitimer(2), of processor time");
    check(setitimer(ITIMER_VIRTUAL, &virtual, NULL) == 0 &&
        setitimer(ITIMER_PROF, &of_both, NULL) == 0);
    prepare_here();
    check(getitimer(ITIMER_VIRTUAL, &now) == 0);
    if (suite.way == FORK) {
        check(now.it_value.tv_sec == 0 && getitimer(ITIMER_PROF, &now) == 0 &&
            now.it_value.tv_sec == 0);
        return is_new();
    }
    check(now.it_value.tv_sec >= 40 && now.it_value.tv_sec <= 50);
    check(getitimer(ITIMER_PROF, &now) == 0 && now.it_value.tv_sec >= 50 &&
        now.it_interval.tv_sec == 3);
    return carried();
}
