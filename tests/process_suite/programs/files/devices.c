#include "suite.h"

#include <sys/stat.h>

int main(void)
{
    char byte = 1;
    unsigned char random[8] = {0};
    about("/dev/null, zero, full, urandom");
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY);
    int full = open("/dev/full", O_WRONLY), urandom = open("/dev/urandom", O_RDONLY);
    check(null >= 0 && zero >= 0 && full >= 0 && urandom >= 0);
    prepare_here_with_files();
    check(read(null, &byte, 1) == 0 && write(null, "x", 1) == 1);
    check(read(zero, &byte, 1) == 1 && byte == 0);
    check(write(full, "x", 1) == -1 && errno == ENOSPC);
    check(read(urandom, random, 8) == 8 && memcmp(random, "\0\0\0\0\0\0\0\0", 8) != 0);
    return carried();
}
