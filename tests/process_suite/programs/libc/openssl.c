/* OpenSSL notices a fork by the process id, which is the parent's in children of all threads. */
#include "suite.h"

#include <dlfcn.h>

#include "siblings.h"

static int (*rand_bytes)(unsigned char *, int);

static void draw(unsigned char *bytes)
{
    check(rand_bytes(bytes, SIBLING_BYTES) == 1);
}

int main(void)
{
    unsigned char before[SIBLING_BYTES], after[SIBLING_BYTES];
    about("OpenSSL's generator in children of one seed, also with their parent's process id");
    void *crypto = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_GLOBAL);
    if (!crypto)
        return absent("libcrypto.so.3");
    *(void **)&rand_bytes = dlsym(crypto, "RAND_bytes");
    check(rand_bytes != NULL);
    draw(before);
    if (suite.way != PLAIN)
        siblings_differ(draw);
    prepare_here();
    draw(after);
    check(halves_differ(before, after));
    return suite.way == PLAIN ? carried() : is_new();
}
