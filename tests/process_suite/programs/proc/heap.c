/* The kernel calls [heap] what is anonymous between the heap's start and end. In a child what the
 * parent had of it comes from an image, as a mapping of a file. Who looks for the heap finds its start in
 * field 47 of /proc/self/stat, and its end by sbrk(0). */
#include "suite.h"

int main(void)
{
    about("[heap] in /proc/self/maps");
    char *before = sbrk(0x10000);
    check(before != (void *)-1);
    memset(before, 7, 0x10000);
    check(is_in("[heap]", before));
    prepare_here();
    char *grown = sbrk(0x10000);
    check(grown >= before + 0x10000);
    memset(grown, 8, 0x10000);
    check(is_in("[heap]", grown));
    check(is_in("[heap]", before) == (suite.way == PLAIN));
    check(before[0xffff] == 7);
    return suite.way == PLAIN ? carried() : is_new();
}
