#include "suite.h"

#include <sys/timerfd.h>

int main(void)
{
    struct itimerspec now, wanted = {.it_value = {100, 0}, .it_interval = {7, 0}};
    uint64_t times = 0;
    about("a timerfd with the time that was left");
    int far = timerfd_create(CLOCK_MONOTONIC, 0),
        over = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
    check(timerfd_settime(far, 0, &wanted, NULL) == 0);
    wanted = (struct itimerspec){.it_value = {0, 1}};
    check(timerfd_settime(over, 0, &wanted, NULL) == 0);
    sleep_ms(2);
    prepare_here_with_files();
    check(timerfd_gettime(far, &now) == 0 && now.it_interval.tv_sec == 7);
    check(now.it_value.tv_sec > 40 && now.it_value.tv_sec <= 100);
    check(read(over, &times, 8) == 8 && times == 1);
    return carried();
}
