/* A seed, published by an agent that only talks (the test). */
#include "check.h"

#include <errno.h>
#include <sys/wait.h>

int main(void)
{
    mitosis_seed *seed;
    const char *handle = NULL, *again = NULL;
    int side = mitosis_prepare(NULL, &seed);
    CHECK(side == MITOSIS_PARENT && seed != NULL);
    CHECK(mitosis_seed_handle(seed, &handle) == MITOSIS_OK);
    CHECK(strncmp(handle, "mitosis://host-a:7370/", 22) == 0 && strlen(handle) == 22 + 16 + 1 + 64);
    CHECK(mitosis_seed_handle(seed, &again) == MITOSIS_OK && again == handle);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    FAILS(mitosis_seed_drop(seed, 2), MITOSIS_ERR_ARGUMENT, "MITOSIS_DROP_");

    /* Where no agent answers the seed is as before: the next one may have it. */
    const char *socket = getenv("MITOSIS_AGENT");
    char away[512];
    snprintf(away, sizeof away, "%s.away", socket);
    CHECK(rename(socket, away) == 0);
    for (int i = 0; i < 2; i++)
        FAILS(mitosis_seed_drop(seed, MITOSIS_DROP_REVOKE), MITOSIS_ERR_NO_AGENT, "answers");
    CHECK(mitosis_seed_handle(seed, &again) == MITOSIS_OK && again == handle);
    CHECK(rename(away, socket) == 0);

    CHECK(mitosis_seed_drop(seed, MITOSIS_DROP_AFTER_CHILDREN) == MITOSIS_OK);
    FAILS(mitosis_seed_drop(seed, MITOSIS_DROP_AFTER_CHILDREN), MITOSIS_ERR_SEED_GONE, "dropped");
    FAILS(mitosis_seed_handle(seed, &handle), MITOSIS_ERR_SEED_GONE, "dropped");
    mitosis_seed_free(seed);
    CHECK(mitosis_generation() == 0);
    return 0;
}
