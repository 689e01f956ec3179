/* PKRU and the key of a mapping. */
#include "suite.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf back;

static void handler(int signal)
{
    siglongjmp(back, signal);
}

int main(void)
{
    about("protection keys (pkeys(7))");
    volatile char *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[0] = 5;
    int key = pkey_alloc(0, PKEY_DISABLE_WRITE);
    if (key < 0)
        return absent("protection keys");
    check(pkey_mprotect((void *)page, 4096, PROT_READ | PROT_WRITE, key) == 0);
    signal(SIGSEGV, handler);
    prepare_here();
    check(page[0] == 5 && pkey_get(key) == PKEY_DISABLE_WRITE);
    if (sigsetjmp(back, 1) == 0) {
        page[0] = 6;
        check(!"a write went through");
    }
    check(pkey_set(key, 0) == 0);
    page[0] = 7;
    return carried();
}
