#include "suite.h"

#include <sys/prctl.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

int main(void)
{
    about("equal pages of all its memory are merged (PR_SET_MEMORY_MERGE)");
    if (prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == -1)
        return absent("this kernel merges no pages of a whole process");
    check(prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0);
    prepare_here();
    check(prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1);
    return carried();
}
