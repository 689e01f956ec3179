/* What a processor may guess is given up for good, as of a program that runs what others have written. */
#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    const int kinds[] = {PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH};
    bool changed[2] = {false, false};
    about("processors that guess no more (PR_SET_SPECULATION_CTRL)");
    for (int at = 0; at < 2; at++) {
        int is = prctl(PR_GET_SPECULATION_CTRL, kinds[at], 0, 0, 0);
        if (is == (PR_SPEC_PRCTL | PR_SPEC_ENABLE))
            changed[at] =
                prctl(PR_SET_SPECULATION_CTRL, kinds[at], PR_SPEC_FORCE_DISABLE, 0, 0) == 0;
    }
    if (!changed[0] && !changed[1])
        return absent("nobody decides about it here");
    prepare_here();
    for (int at = 0; at < 2; at++) {
        int is = prctl(PR_GET_SPECULATION_CTRL, kinds[at], 0, 0, 0);
        check(!changed[at] || is == (PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE));
    }
    return carried();
}
