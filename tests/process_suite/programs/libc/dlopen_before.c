#include "suite.h"

#include <dlfcn.h>

int main(void)
{
    about("a library loaded before the fork");
    void *library = dlopen(getenv("SUITE_PLUGIN"), RTLD_LAZY);
    check(library != NULL);
    prepare_here();
    int (*constructed)(void) = (int (*)(void))dlsym(library, "plugin_constructed");
    check(constructed != NULL && constructed() == 42);
    check(dlopen(getenv("SUITE_PLUGIN"), RTLD_NOLOAD | RTLD_LAZY) == library);
    check(dlclose(library) == 0 && dlclose(library) == 0);
    check(dlopen(getenv("SUITE_PLUGIN"), RTLD_NOLOAD | RTLD_LAZY) == NULL);
    return carried();
}
