#include "suite.h"

#include <getopt.h>

int main(int count, char **arguments)
{
    about("argv and program_invocation_name changed at run time");
    check(count == 1);
    arguments[0] = strdup("another");
    program_invocation_short_name = arguments[0];
    prepare_here();
    check(strcmp(arguments[0], "another") == 0);
    check(strcmp(program_invocation_short_name, "another") == 0);
    return carried();
}
