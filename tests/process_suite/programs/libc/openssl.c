/* OpenSSL notices a fork by the process id, which is the parent's in children of all threads. */
#include "suite.h"

#include <dlfcn.h>

enum { BYTES = 16, SIBLINGS = 2 };

static int (*rand_bytes)(unsigned char *, int);

/* Two children of one seed, on this host, draw different bytes. */
static void siblings(void)
{
    unsigned char drawn[SIBLINGS][BYTES];
    const char *handle;
    mitosis_seed *seed;
    mitosis_prepare_options options = {};
    options.size = sizeof options;
    options.flags = suite.way == WHOLE ? MITOSIS_PREPARE_ALL_THREADS : 0;
    int returned = mitosis_prepare(&options, &seed);
    if (returned == MITOSIS_CHILD)
        _exit(rand_bytes(drawn[0], BYTES) == 1 && write(1, drawn[0], BYTES) == BYTES ? 0 : 1);
    check(returned == MITOSIS_PARENT);
    check(mitosis_seed_handle(seed, &handle) == MITOSIS_OK);
    for (int i = 0; i < SIBLINGS; i++) {
        int ends[2];
        mitosis_child *child;
        mitosis_resume_options how = {};
        mitosis_child_status status = {};
        how.size = sizeof how;
        status.size = sizeof status;
        check(pipe(ends) == 0);
        const int stdio[] = {0, ends[1], 2};
        how.stdio = stdio;
        check(mitosis_resume(handle, &how, 1, &child) == MITOSIS_OK);
        close(ends[1]);
        check(read(ends[0], drawn[i], BYTES) == BYTES);
        close(ends[0]);
        check(mitosis_child_wait(child, -1, &status) == MITOSIS_OK);
        check(status.kind == MITOSIS_END_EXITED && status.value == 0);
        mitosis_child_free(child);
    }
    check(memcmp(drawn[0], drawn[1], BYTES) != 0);
    mitosis_seed_drop(seed, MITOSIS_DROP_REVOKE);
    mitosis_seed_free(seed);
}

int main(void)
{
    unsigned char bytes[BYTES], again[BYTES];
    about("OpenSSL's generator in children of one seed, also with their parent's process id");
    void *crypto = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_GLOBAL);
    if (!crypto)
        return absent("libcrypto.so.3");
    *(void **)&rand_bytes = dlsym(crypto, "RAND_bytes");
    check(rand_bytes && rand_bytes(bytes, BYTES) == 1);
    if (suite.way != PLAIN)
        siblings();
    prepare_here();
    check(rand_bytes(again, BYTES) == 1 && memcmp(bytes, again, BYTES) != 0);
    return carried();
}
