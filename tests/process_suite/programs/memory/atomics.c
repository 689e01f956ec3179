/* Locked instructions and unaligned accesses across two pages that are not there yet. */
#include "suite.h"

#include <stdint.h>
#include <sys/mman.h>

int main(void)
{
    about("atomic and unaligned accesses across pages");
    char *area = mmap(NULL, 4 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t value = 0x1122334455667788, got = 0;
    memcpy(area + 4096 - 3, &value, 8);
    uint64_t *word = (uint64_t *)(void *)(area + (3 << 12));
    *word = 5;
    prepare_here();
    memcpy(&got, area + 4096 - 3, 8);
    check(got == value);
    check(__atomic_fetch_add(word, 2, __ATOMIC_SEQ_CST) == 5 && *word == 7);
    return carried();
}
