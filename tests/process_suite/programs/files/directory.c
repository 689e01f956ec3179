#include "suite.h"

#include <dirent.h>

int main(void)
{
    bool found = false;
    about("an open directory (opendir(3), openat(2))");
    DIR *folder = opendir(in_folder(""));
    check(folder != NULL);
    prepare_here_with_files();
    for (struct dirent *entry; (entry = readdir(folder));)
        found |= strcmp(entry->d_name, "kept") == 0;
    check(found);
    int fd = openat(dirfd(folder), "kept", O_RDONLY);
    check(fd >= 0 && lseek(fd, 0, SEEK_END) == 16);
    check(closedir(folder) == 0);
    return carried();
}
