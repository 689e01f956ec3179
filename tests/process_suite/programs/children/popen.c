#include "suite.h"

int main(void)
{
    char line[64] = {0};
    about("popen(3), both ways");
    prepare_here();
    FILE *reads = popen("echo a line", "r");
    check(reads && fgets(line, sizeof line, reads) && strcmp(line, "a line\n") == 0);
    check(pclose(reads) == 0);
    FILE *writes = popen("read word; test $word = told", "w");
    check(writes && fputs("told\n", writes) >= 0 && pclose(writes) == 0);
    return carried();
}
