/* A thread that computes in vector registers and makes no call. */
#include "suite.h"

#include <pthread.h>

static volatile int standing, go;
static unsigned long out[2];

static void *computing(void *argument)
{
    const unsigned long in[2] = {0xaaaa5555aaaa5555, 0x0f0f0f0f0f0f0f0f};
    asm volatile("movdqu (%[in]), %%xmm6; movl $1, %[standing]; 1: pause; cmpl $0, %[go]; je 1b;"
                 "movdqu %%xmm6, (%[out])"
                 : [standing] "+m"(standing)
                 : [in] "r"(in), [out] "r"(out), [go] "m"(go)
                 : "xmm6", "memory", "cc");
    return argument;
}

int main(void)
{
    pthread_t thread;
    about("registers of other threads");
    check(pthread_create(&thread, NULL, computing, NULL) == 0);
    while (!standing)
        sleep_ms(1);
    prepare_here();
    if (suite.way == FORK) {
        check(strcmp(status_of("Threads"), "1") == 0);
        return is_new();
    }
    go = 1;
    check(pthread_join(thread, NULL) == 0);
    check(out[0] == 0xaaaa5555aaaa5555 && out[1] == 0x0f0f0f0f0f0f0f0f);
    return carried();
}
