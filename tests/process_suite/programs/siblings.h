/* Two children of one seed, on this host, that draw random bytes. */
#ifndef SIBLINGS_H
#define SIBLINGS_H

#include "suite.h"

enum { SIBLING_BYTES = 32, SIBLINGS = 2 };

/* Each half may be another generator's. */
static inline bool halves_differ(const unsigned char *one, const unsigned char *other)
{
    enum { HALF = SIBLING_BYTES / 2 };
    return memcmp(one, other, HALF) != 0 && memcmp(one + HALF, other + HALF, HALF) != 0;
}

static inline void siblings_differ(void (*draw)(unsigned char *bytes))
{
    unsigned char drawn[SIBLINGS][SIBLING_BYTES];
    const char *handle;
    mitosis_seed *seed;
    mitosis_prepare_options options = {};
    options.size = sizeof options;
    options.flags = suite.way == WHOLE ? MITOSIS_PREPARE_ALL_THREADS : 0;
    int returned = mitosis_prepare(&options, &seed);
    if (returned == MITOSIS_CHILD) {
        draw(drawn[0]);
        _exit(write(1, drawn[0], SIBLING_BYTES) == SIBLING_BYTES ? 0 : 1);
    }
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
        check(read(ends[0], drawn[i], SIBLING_BYTES) == SIBLING_BYTES);
        close(ends[0]);
        check(mitosis_child_wait(child, -1, &status) == MITOSIS_OK);
        check(status.kind == MITOSIS_END_EXITED && status.value == 0);
        mitosis_child_free(child);
    }
    check(halves_differ(drawn[0], drawn[1]));
    mitosis_seed_drop(seed, MITOSIS_DROP_REVOKE);
    mitosis_seed_free(seed);
}

#endif
