/* PR_SET_MDWE: no memory becomes executable afterwards. */
#include "suite.h"

#include <sys/mman.h>
#include <sys/prctl.h>

int main(void)
{
    about("no memory that becomes executable (PR_SET_MDWE)");
    if (prctl(65, 1, 0, 0, 0) != 0)
        return absent("PR_SET_MDWE");
    prepare_here();
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    check(mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0);
    return carried();
}
