#include "suite.h"

#include <stdint.h>

static __thread uint64_t initialised = 0x1122334455667788, zero, array[300];

int main(void)
{
    about("thread-local storage of the program");
    initialised++;
    array[299] = 9;
    uint64_t *place = &zero;
    *place = 3;
    prepare_here();
    check(initialised == 0x1122334455667789 && array[299] == 9 && &zero == place && zero == 3);
    return carried();
}
