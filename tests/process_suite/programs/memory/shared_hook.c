/* A hook maps what is shared on the child's host in the place of the copy. */
#include "suite.h"

#include <sys/mman.h>

static volatile int *area;
static char path[256];

static volatile int *map_at(volatile int *place)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0)
        return MAP_FAILED;
    void *mapped = mmap((void *)place, 4096, PROT_READ | PROT_WRITE,
        MAP_SHARED | (place ? MAP_FIXED : 0), fd, 0);
    close(fd);
    return mapped;
}

static int map_again(void *data)
{
    (void)data;
    return area[0] == 7 && map_at(area) == area ? 0 : 1;
}

int main(void)
{
    about("shared memory that a hook maps again, from its host's own");
    snprintf(path, sizeof path, "/dev/shm%s", name_of_its_own());
    area = map_at(NULL);
    check(area != MAP_FAILED);
    area[0] = 7;
    check(mitosis_after_resume(map_again, NULL, 0) == MITOSIS_OK);
    prepare_here();
    /* Another process, that has nothing of this one's memory but by its name. */
    area[1] = 9;
    pid_t pid = fork();
    if (pid == 0) {
        volatile int *other = map_at(NULL);
        bool is_there = other != MAP_FAILED && other[1] == 9;
        other[2] = 11;
        _exit(is_there ? 0 : 1);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0 && area[2] == 11);
    unlink(path);
    return carried();
}
