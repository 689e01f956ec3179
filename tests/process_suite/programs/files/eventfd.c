#include "suite.h"

#include <sys/eventfd.h>

int main(void)
{
    uint64_t number = 0;
    about("an eventfd, counting and as a semaphore");
    int counter = eventfd(5, EFD_NONBLOCK), semaphore = eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE);
    prepare_here_with_files();
    check(read(counter, &number, 8) == 8 && number == 5 && read(counter, &number, 8) == -1 &&
        errno == EAGAIN);
    check(read(semaphore, &number, 8) == 8 && number == 1 && read(semaphore, &number, 8) == 8);
    check(read(semaphore, &number, 8) == -1);
    return carried();
}
