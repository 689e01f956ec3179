#include "suite.h"

#include <pty.h>
#include <termios.h>

int main(void)
{
    int master = -1, slave = -1;
    char text[16] = {0};
    struct winsize size = {.ws_row = 33, .ws_col = 99}, now;
    about("a pseudo terminal");
    check(openpty(&master, &slave, NULL, NULL, &size) == 0);
    prepare_here_with_files();
    check(isatty(slave) && ioctl(slave, TIOCGWINSZ, &now) == 0 && now.ws_row == 33 &&
        now.ws_col == 99);
    check(write(slave, "out", 3) == 3 && read(master, text, 15) == 3 && strcmp(text, "out") == 0);
    return carried();
}
