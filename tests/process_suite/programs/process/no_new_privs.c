#include "suite.h"

#include <sys/prctl.h>

int main(void)
{
    about("no_new_privs");
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    prepare_here();
    check(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    return carried();
}
