#include "suite.h"

int main(void)
{
    about("status flags of files (O_NONBLOCK, O_SYNC, O_NOATIME)");
    int fd = open(in_folder("kept"), O_RDWR | O_SYNC | O_NOATIME);
    check(fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK | O_NOATIME) == 0);
    int before = fcntl(fd, F_GETFL);
    prepare_here_with_files();
    check(fcntl(fd, F_GETFL) == before);
    return carried();
}
