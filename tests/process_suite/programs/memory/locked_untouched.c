/* Locked as with MLOCK_ONFAULT: it comes when it is touched, and stays. */
#include "suite.h"

#include <sys/mman.h>

enum { PAGES = 4096 };

static int there(void *area)
{
    static unsigned char is_there[PAGES];
    int count = 0;
    check(mincore(area, PAGES << 12, is_there) == 0);
    for (int page = 0; page < PAGES; page++)
        count += is_there[page] & 1;
    return count;
}

int main(void)
{
    about("locked memory that nobody has touched since, is there already");
    char *area = mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
        0);
    memset(area, 5, PAGES << 12);
    check(mlock(area, PAGES << 12) == 0 && there(area) == PAGES);
    prepare_here();
    /* A fork's child has no lock, whatever is there. */
    long locked = atol(status_of("VmLck"));
    check(suite.way == FORK ? locked == 0 : locked >= PAGES << 2);
    int count = there(area);
    for (int page = 0; page < PAGES; page++)
        check(area[page << 12] == 5);
    check(there(area) == PAGES);
    if (suite.way == PLAIN)
        return count == PAGES ? carried() : 1;
    check(count < PAGES);
    return is_new();
}
