/* PR_SET_MDWE with PR_MDWE_NO_INHERIT: the process's own, and not that of its forks. */
#include "suite.h"

#include <sys/mman.h>
#include <sys/prctl.h>

enum { GET = 66, SET = 65, REFUSE_AND_NO_INHERIT = 3 };

int main(void)
{
    about("no memory that becomes executable, but in its forks (PR_MDWE_NO_INHERIT)");
    if (prctl(SET, REFUSE_AND_NO_INHERIT, 0, 0, 0) != 0)
        return absent("PR_MDWE_NO_INHERIT");
    prepare_here();
    if (suite.way == FORK) {
        check(prctl(GET, 0, 0, 0, 0) == 0);
        return is_new();
    }
    check(prctl(GET, 0, 0, 0, 0) == REFUSE_AND_NO_INHERIT);
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    check(mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0);
    return carried();
}
