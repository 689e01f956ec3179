/* State that a function keeps between two calls. */
#include "suite.h"

int main(void)
{
    char text[] = "one two three";
    about("state between two calls of libc (strtok(3), getpwent's buffer)");
    check(strcmp(strtok(text, " "), "one") == 0);
    prepare_here();
    check(strcmp(strtok(NULL, " "), "two") == 0 && strcmp(strtok(NULL, " "), "three") == 0);
    check(strtok(NULL, " ") == NULL);
    return carried();
}
