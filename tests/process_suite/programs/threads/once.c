#include "suite.h"

#include <pthread.h>

static int times;

static void initialise(void)
{
    times++;
}

int main(void)
{
    static pthread_once_t before = PTHREAD_ONCE_INIT, after = PTHREAD_ONCE_INIT;
    about("pthread_once(3)");
    pthread_once(&before, initialise);
    prepare_here();
    pthread_once(&before, initialise);
    check(times == 1);
    pthread_once(&after, initialise);
    pthread_once(&after, initialise);
    check(times == 2);
    return carried();
}
