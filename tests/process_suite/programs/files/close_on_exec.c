#include "suite.h"

int main(void)
{
    about("close-on-exec, each number's own");
    int first = open(in_folder("kept"), O_RDONLY | O_CLOEXEC);
    int second = fcntl(first, F_DUPFD, 100);
    prepare_here_with_files();
    check(fcntl(first, F_GETFD) == FD_CLOEXEC && fcntl(second, F_GETFD) == 0);
    return carried();
}
