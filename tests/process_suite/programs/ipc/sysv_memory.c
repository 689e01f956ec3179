/* Copied, as all shared memory is. */
#include "suite.h"

#include <sys/ipc.h>
#include <sys/shm.h>

int main(void)
{
    about("System V shared memory");
    int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
    char *area = shmat(id, NULL, 0);
    check(area != (void *)-1 && shmctl(id, IPC_RMID, NULL) == 0);
    strcpy(area, "shared");
    prepare_here();
    check(strcmp(area, "shared") == 0 && area[8191] == 0);
    area[0] = 'S';
    check(strcmp(area, "Shared") == 0);
    return carried();
}
