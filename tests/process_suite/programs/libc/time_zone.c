#include "suite.h"

int main(void)
{
    struct tm parts;
    time_t when = 1700000000;
    about("time zone of tzset(3)");
    setenv("TZ", "XYZ-5:30", 1);
    tzset();
    prepare_here();
    check(timezone == -(5 * 3600 + 1800) && strcmp(tzname[0], "XYZ") == 0);
    check(localtime_r(&when, &parts) && parts.tm_hour == 3 && parts.tm_min == 43);
    return carried();
}
