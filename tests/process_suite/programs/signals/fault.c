/* SIGSEGV with the address that was touched; the handler mends it and the access goes on. */
#include "suite.h"

#include <signal.h>
#include <sys/mman.h>

static char *page;
static void *touched;

static void handler(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    touched = info->si_addr;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    about("faults that a handler mends");
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[8] = 4;
    mprotect(page, 4096, PROT_NONE);
    sigaction(SIGSEGV, &action, NULL);
    prepare_here();
    check(((volatile char *)page)[8] == 4 && touched == page + 8);
    return carried();
}
