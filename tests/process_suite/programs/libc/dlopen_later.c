/* From the disk of the child's host, with storage of threads and a constructor. */
#include "suite.h"

#include <dlfcn.h>

int main(void)
{
    about("a library loaded after the fork");
    prepare_here();
    void *library = dlopen(getenv("SUITE_PLUGIN"), RTLD_NOW);
    if (!library)
        say("%s", dlerror());
    check(library != NULL);
    int (*constructed)(void) = (int (*)(void))dlsym(library, "plugin_constructed");
    int *(*own)(void) = (int *(*)(void))dlsym(library, "plugin_own");
    check(constructed() == 42 && *own() == 7);
    return carried();
}
