/* What lies in a buffer of stdio at the fork is memory: the child has it, too. */
#include "suite.h"

int main(void)
{
    static char text[64];
    about("what lies in stdio's buffers");
    FILE *memory = fmemopen(text, sizeof text, "w");
    check(memory != NULL);
    setvbuf(memory, NULL, _IOFBF, 32);
    fprintf(memory, "before ");
    prepare_here();
    fprintf(memory, "after");
    check(fflush(memory) == 0 && strcmp(text, "before after") == 0);
    return carried();
}
