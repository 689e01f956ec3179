/* Hooks around a prepare: their order, those that fail, and those that take too long. */
#include "check.h"

#include <unistd.h>

static char ran[64];
static int fails_before, fails_after, sleeps_ms;

static int notes(void *data)
{
    strncat(ran, data, sizeof ran - strlen(ran) - 1);
    return 0;
}

static int may_fail_before(void *data)
{
    (void)data;
    usleep(1000 * (useconds_t)sleeps_ms);
    return fails_before;
}

static int may_fail_after(void *data)
{
    (void)data;
    return fails_after;
}

static int prepared(void)
{
    mitosis_seed *seed;
    const char *handle = NULL;
    const int side = mitosis_prepare(NULL, &seed);
    if (side == MITOSIS_PARENT) {
        CHECK(mitosis_seed_handle(seed, &handle) == MITOSIS_OK);
        CHECK(mitosis_seed_drop(seed, MITOSIS_DROP_AFTER_CHILDREN) == MITOSIS_OK);
        mitosis_seed_free(seed);
    }
    return side;
}

int main(void)
{
    FAILS(mitosis_before_prepare(NULL, NULL, 0), MITOSIS_ERR_NULL, "hook");
    FAILS(mitosis_rehearse(NULL, NULL), MITOSIS_ERR_NULL, "hook");
    CHECK(mitosis_rehearse(notes, "nor here") == MITOSIS_OK);
    CHECK(mitosis_before_prepare(may_fail_before, NULL, 50) == MITOSIS_OK);
    CHECK(mitosis_before_prepare(notes, "1", 0) == MITOSIS_OK);
    CHECK(mitosis_before_prepare(notes, "2", MITOSIS_HOOK_NO_TIMEOUT) == MITOSIS_OK);
    CHECK(mitosis_after_prepare(notes, "a", 0) == MITOSIS_OK);
    CHECK(mitosis_after_prepare(may_fail_after, NULL, 0) == MITOSIS_OK);
    CHECK(mitosis_after_prepare(notes, "b", 0) == MITOSIS_OK);
    CHECK(mitosis_after_resume(notes, "never here", 0) == MITOSIS_OK);

    CHECK(prepared() == MITOSIS_PARENT);
    CHECK(strcmp(ran, "21ab") == 0);

    /* A failure before: nothing is prepared, and what was closed is opened again. */
    fails_before = 7;
    FAILS(prepared(), MITOSIS_ERR_HOOK, "before_prepare hook");
    CHECK(strstr(mitosis_last_error_message(), "returned 7: no seed was made") != NULL);
    CHECK(strcmp(ran, "21ab21ab") == 0);
    fails_before = 0;

    sleeps_ms = 120;
    FAILS(prepared(), MITOSIS_ERR_HOOK, "has not returned after 50ms");
    sleeps_ms = 0;

    /* A failure behind: the others run, and the seed is gone. */
    ran[0] = 0;
    fails_after = -1;
    FAILS(prepared(), MITOSIS_ERR_HOOK, "after_prepare hook");
    CHECK(strcmp(ran, "21ab") == 0);
    fails_after = 0;
    CHECK(prepared() == MITOSIS_PARENT);

    /* Up to their limit, which stands in the message. */
    int code = MITOSIS_OK;
    for (int i = 0; i < 2000 && code == MITOSIS_OK; i++)
        code = mitosis_after_resume(notes, "", 0);
    CHECK(code == MITOSIS_ERR_LIMIT && strstr(mitosis_last_error_message(), "1024") != NULL);
    return 0;
}
