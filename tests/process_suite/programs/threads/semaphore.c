#include "suite.h"

#include <semaphore.h>

int main(void)
{
    sem_t semaphore;
    int value = 0;
    about("unnamed semaphores");
    check(sem_init(&semaphore, 0, 3) == 0);
    prepare_here();
    check(sem_getvalue(&semaphore, &value) == 0 && value == 3);
    check(sem_trywait(&semaphore) == 0 && sem_wait(&semaphore) == 0 &&
        sem_trywait(&semaphore) == 0);
    check(sem_trywait(&semaphore) == -1 && errno == EAGAIN && sem_post(&semaphore) == 0);
    return carried();
}
