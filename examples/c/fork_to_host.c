/*
 * Forks itself to the host named in argv[1], or onto this one: the child finds the buffer that its parent
 * has filled, and exits with 7.
 *
 *     cc fork_to_host.c -lmitosis -o fork_to_host && ./fork_to_host host-b
 */
#include <mitosis.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WORDS = 4 << 20, CHILD_STATUS = 7 };

/* Any sequence that nobody has by accident: a linear congruential generator. */
static uint64_t next(uint64_t state)
{
    return state * 6364136223846793005u + 1442695040888963407u;
}

static int in_child(const uint64_t *words, uint64_t seed)
{
    char host[256] = "?";
    gethostname(host, sizeof host - 1);
    for (size_t i = 0; i < WORDS; i++) {
        seed = next(seed);
        if (words[i] != seed) {
            printf("child:  word %zu differs\n", i);
            return 1;
        }
    }
    printf("child:  %d MiB are right; host %s, pid %d, generation %llu\n",
           (int)(WORDS * sizeof *words >> 20), host, (int)getpid(),
           (unsigned long long)mitosis_generation());
    return CHILD_STATUS;
}

static int in_parent(mitosis_child *child)
{
    mitosis_child_status status = {.size = sizeof status};
    if (mitosis_child_wait(child, -1, &status) != MITOSIS_OK) {
        fprintf(stderr, "fork_to_host: %s\n", mitosis_last_error_message());
        return 1;
    }
    printf("parent: child %d on %s %s\n", mitosis_child_pid(child), mitosis_child_host(child),
           status.message);
    mitosis_child_free(child);
    return status.kind == MITOSIS_END_EXITED && status.value == CHILD_STATUS ? 0 : 1;
}

int main(int argc, char **argv)
{
    uint64_t *words = malloc(WORDS * sizeof *words);
    if (words == NULL)
        return 1;
    const uint64_t seed = (uint64_t)getpid();
    uint64_t state = seed;
    for (size_t i = 0; i < WORDS; i++)
        words[i] = state = next(state);
    fflush(NULL); /* what is buffered would be printed by both */

    mitosis_child *child;
    switch (mitosis_fork(argc > 1 ? argv[1] : NULL, &child)) {
    case MITOSIS_CHILD:
        return in_child(words, seed);
    case MITOSIS_PARENT:
        return in_parent(child);
    default:
        fprintf(stderr, "fork_to_host: %s\n", mitosis_last_error_message());
        return 1;
    }
}
