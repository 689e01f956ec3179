/* userfaultfd(2) on memory of before the fork: a fault is told and answered. */
#include "suite.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static int faults;

static void *answer(void *argument)
{
    struct uffd_msg message;
    char *area = argument;
    static char page[4096] = "answered";
    check(read(faults, &message, sizeof message) == sizeof message &&
        message.event == UFFD_EVENT_PAGEFAULT);
    struct uffdio_copy copy = {.dst = (unsigned long)area, .src = (unsigned long)page, .len = 4096};
    check(ioctl(faults, UFFDIO_COPY, &copy) == 0);
    return NULL;
}

int main(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    pthread_t thread;
    about("userfaultfd(2) after the fork");
    prepare_here();
    char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    check(faults >= 0 && ioctl(faults, UFFDIO_API, &api) == 0);
    struct uffdio_register range =
        {.range = {(unsigned long)area, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    check(ioctl(faults, UFFDIO_REGISTER, &range) == 0);
    check(pthread_create(&thread, NULL, answer, area) == 0);
    check(strcmp(area, "answered") == 0 && pthread_join(thread, NULL) == 0);
    return carried();
}
