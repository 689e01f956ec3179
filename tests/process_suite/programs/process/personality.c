#include "suite.h"

#include <sys/personality.h>

int main(void)
{
    about("personality");
    check(personality(ADDR_NO_RANDOMIZE | UNAME26) != -1);
    prepare_here();
    check(personality(0xffffffff) == (ADDR_NO_RANDOMIZE | UNAME26));
    return carried();
}
