/* Whoever it is must have a place in the map. */
#include "suite.h"

int main(void)
{
    static const char *const map[] = {"1:100000:65536", NULL};
    about("an id map that leaves out whom the process is");
    suite.id_map = map;
    prepare_here();
    return carried();
}
