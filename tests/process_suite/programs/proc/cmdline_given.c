/* In place of its parent's; a child of that child has it still, and one of its own may be given another. */
#include "suite.h"

static bool is_cmdline(const char *wanted, size_t size)
{
    static char text[8192];
    return read_whole("/proc/self/cmdline", text, sizeof text) == size && !memcmp(text, wanted, size);
}

int main(int argc, char **argv)
{
    static const char *const first[] = {"worker", "", "--blue", NULL};
    static const char *const second[] = {"other", NULL};
    const char *name = strdup(argv[0]);
    about("an argv that the resumer gives");
    if (suite.way == PLAIN)
        return carried();
    suite.argv = first;
    prepare_here();
    check(is_cmdline("worker\0\0--blue", 15));
    /* What points into the old one still does. */
    check(argc == 1 && !strcmp(argv[0], name) && !strcmp(program_invocation_name, name));
    suite.argv = NULL;
    prepare_here();
    check(is_cmdline("worker\0\0--blue", 15));
    suite.argv = second;
    prepare_here();
    check(is_cmdline("other", 6) && !strcmp(argv[0], name));
    return is_new();
}
