/* Two numbers of one open file share its offset; two open files do not. */
#include "suite.h"

int main(void)
{
    about("numbers that share an offset (dup(2))");
    int first = open(in_folder("kept"), O_RDONLY), second = dup(first),
        other = open(in_folder("kept"), O_RDONLY);
    prepare_here_with_files();
    check(lseek(first, 7, SEEK_SET) == 7 && lseek(second, 0, SEEK_CUR) == 7 &&
        lseek(other, 0, SEEK_CUR) == 0);
    check(syscall(SYS_kcmp, getpid(), getpid(), 0, first, second) == 0 || errno == ENOSYS ||
        errno == EPERM);
    return carried();
}
