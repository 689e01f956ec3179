/* A mutex in shared memory between the child and its own child. */
#include "suite.h"

#include <pthread.h>
#include <sys/mman.h>

int main(void)
{
    pthread_mutexattr_t kind;
    struct {
        pthread_mutex_t mutex;
        int count;
    } *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    about("a mutex shared by processes");
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    check(pthread_mutex_init(&shared->mutex, &kind) == 0);
    prepare_here();
    pid_t pid = fork();
    for (int turn = 0; turn < 2000; turn++) {
        pthread_mutex_lock(&shared->mutex);
        shared->count++;
        pthread_mutex_unlock(&shared->mutex);
    }
    if (pid == 0)
        _exit(0);
    check(waitpid(pid, NULL, 0) == pid && shared->count == 4000);
    return carried();
}
