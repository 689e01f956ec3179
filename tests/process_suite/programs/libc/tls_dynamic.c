#include "suite.h"

#include <dlfcn.h>

int main(void)
{
    about("thread-local storage of a library loaded at run time");
    void *library = dlopen(getenv("SUITE_PLUGIN"), RTLD_NOW);
    check(library != NULL);
    int *(*own)(void) = (int *(*)(void))dlsym(library, "plugin_own");
    *own() = 8;
    int *place = own();
    prepare_here();
    check(own() == place && *own() == 8);
    check(dlclose(library) == 0);
    return carried();
}
