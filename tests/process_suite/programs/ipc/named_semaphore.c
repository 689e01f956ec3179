#include "suite.h"

#include <semaphore.h>

int main(void)
{
    int value = 0;
    about("a named POSIX semaphore that is open");
    const char *name = name_of_its_own();
    sem_t *semaphore = sem_open(name, O_CREAT, 0600, 3);
    check(semaphore != SEM_FAILED && sem_unlink(name) == 0);
    prepare_here();
    check(sem_getvalue(semaphore, &value) == 0 && value == 3 && sem_trywait(semaphore) == 0);
    check(sem_getvalue(semaphore, &value) == 0 && value == 2);
    return carried();
}
