#include "suite.h"

#include <sys/mman.h>

/* VmFlags of the mapping that begins there. */
static bool is_mergeable(void *area)
{
    char line[512], begin[32];
    bool inside = false, is = false;
    snprintf(begin, sizeof begin, "%lx-", (unsigned long)area);
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, begin, strlen(begin)) == 0)
            inside = true;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            is = strstr(line, " mg") != NULL;
            break;
        }
    }
    fclose(file);
    return is;
}

int main(void)
{
    about("memory that equal pages are merged in (MADV_MERGEABLE)");
    char *area = mmap(NULL, 4 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 5, 4 << 12);
    if (madvise(area, 4 << 12, MADV_MERGEABLE) != 0 && errno == EINVAL)
        return absent("this kernel merges no pages (CONFIG_KSM)");
    check(is_mergeable(area));
    prepare_here();
    check(is_mergeable(area) && area[0] == 5 && area[(4 << 12) - 1] == 5);
    check(madvise(area, 4 << 12, MADV_UNMERGEABLE) == 0 && !is_mergeable(area));
    return carried();
}
