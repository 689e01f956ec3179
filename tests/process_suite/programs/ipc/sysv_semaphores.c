/* A kernel's object, by its number: it stays on its host. */
#include "suite.h"

#include <sys/ipc.h>
#include <sys/sem.h>

int main(void)
{
    about("System V semaphores");
    int id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
    check(id >= 0 && semctl(id, 0, SETVAL, 3) == 0);
    prepare_here();
    int value = semctl(id, 0, GETVAL);
    if (suite.way != PLAIN) {
        check(value == -1 && (errno == EINVAL || errno == EIDRM));
        return is_new();
    }
    check(value == 3 && semctl(id, 0, IPC_RMID) == 0);
    return carried();
}
