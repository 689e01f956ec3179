#include "suite.h"

#include <sys/prctl.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

int main(void)
{
    about("a process that others' I/O waits for (PR_SET_IO_FLUSHER; the kernel tells it to "
        "CAP_SYS_RESOURCE alone)");
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
        return absent("this process may not be one (CAP_SYS_RESOURCE)");
    prepare_here();
    check(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1);
    return carried();
}
