/* A pipe of packets (O_DIRECT): the borders between them. */
#include "suite.h"

int main(void)
{
    char text[16];
    int ends[2];
    about("a pipe of packets (O_DIRECT)");
    check(pipe2(ends, O_DIRECT | O_NONBLOCK) == 0 && write(ends[1], "one", 3) == 3 &&
        write(ends[1], "four", 4) == 4);
    prepare_here_with_files();
    check(read(ends[0], text, 15) == 3 && memcmp(text, "one", 3) == 0);
    check(read(ends[0], text, 15) == 4 && memcmp(text, "four", 4) == 0);
    return carried();
}
