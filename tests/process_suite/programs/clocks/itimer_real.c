#include "suite.h"

#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t count;

static void handler(int signal)
{
    (void)signal;
    count++;
}

int main(void)
{
    struct itimerval now, wanted = {.it_value = {100, 0}, .it_interval = {7, 0}};
    about("setitimer(2), of real time");
    signal(SIGALRM, handler);
    check(setitimer(ITIMER_REAL, &wanted, NULL) == 0);
    prepare_here();
    check(getitimer(ITIMER_REAL, &now) == 0);
    if (suite.way == FORK) {
        check(now.it_value.tv_sec == 0 && now.it_value.tv_usec == 0);
        return is_new();
    }
    check(now.it_interval.tv_sec == 7 && now.it_value.tv_sec > 40 && now.it_value.tv_sec <= 100);
    wanted = (struct itimerval){.it_value = {0, 2000}};
    check(setitimer(ITIMER_REAL, &wanted, NULL) == 0);
    for (int tries = 0; count == 0 && tries < 2000; tries++)
        sleep_ms(1);
    check(count == 1);
    return carried();
}
