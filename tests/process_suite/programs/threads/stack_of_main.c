#include "suite.h"

#include <pthread.h>

int main(void)
{
    pthread_attr_t attributes;
    void *place = NULL;
    size_t size = 0;
    char here;
    about("the main thread's stack, as libc tells it");
    prepare_here();
    check(pthread_getattr_np(pthread_self(), &attributes) == 0);
    check(pthread_attr_getstack(&attributes, &place, &size) == 0);
    check(&here > (char *)place && &here < (char *)place + size && size >= 1 << 16);
    return carried();
}
