/* pthread_setname_np(3) of another thread goes by /proc/self/task/TID. */
#include "suite.h"

#include <pthread.h>
#include <semaphore.h>

static sem_t may_end;

static void *body(void *argument)
{
    sem_wait(&may_end);
    return argument;
}

int main(void)
{
    pthread_t thread;
    char name[16];
    about("names of threads made after the fork (pthread_setname_np(3))");
    sem_init(&may_end, 0, 0);
    prepare_here();
    check(pthread_create(&thread, NULL, body, NULL) == 0);
    check(pthread_setname_np(thread, "another") == 0);
    check(pthread_getname_np(thread, name, sizeof name) == 0 && strcmp(name, "another") == 0);
    sem_post(&may_end);
    check(pthread_join(thread, NULL) == 0);
    return carried();
}
