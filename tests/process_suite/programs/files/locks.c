/* Not even fork(2) hands on what fcntl(2) locks; flock(2)'s are the open file's. */
#include "suite.h"

#include <sys/file.h>

int main(void)
{
    about("locks of files (flock(2))");
    int fd = open(in_folder("kept"), O_RDWR);
    check(flock(fd, LOCK_EX) == 0);
    prepare_here_with_files();
    int other = open(in_folder("kept"), O_RDWR);
    bool is_locked = flock(other, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK;
    if (suite.way != PLAIN) {
        check(!is_locked);
        return is_new();
    }
    check(is_locked);
    return carried();
}
