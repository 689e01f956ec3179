/* A FILE of a file that both hosts have, in the middle of its lines. */
#include "suite.h"

int main(void)
{
    char line[64];
    about("a FILE that is read and one that is written");
    FILE *kept = fopen(in_folder("kept"), "r");
    FILE *made = fopen(in_folder("kept"), "r+");
    check(kept && made && fgetc(kept) == 't' && ungetc('T', kept) == 'T');
    check(fseek(made, 4, SEEK_SET) == 0 && fputs("FILE", made) >= 0);
    prepare_here_with_files();
    check(fgets(line, sizeof line, kept) && strcmp(line, "The file's text\n") == 0);
    check(fclose(made) == 0);
    read_whole(in_folder("kept"), line, sizeof line);
    check(strcmp(line, "the FILE's text\n") == 0);
    return carried();
}
