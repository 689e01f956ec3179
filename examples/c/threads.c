/*
 * A process with threads at work is forked to the host named in argv[1], or onto this one: all of its threads
 * go on there, each where it stood, and finish the work that was left. So do those of the parent.
 *
 *     cc threads.c -lmitosis -lpthread -o threads && ./threads host-b
 */
#include <mitosis.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

enum { WORKERS = 4, PIECES = 4000, PREPARE_AT = PIECES / 2 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t half_done = PTHREAD_COND_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static int next_piece, done_pieces, allowed = PREPARE_AT;
static uint64_t sum;
static __thread int own_pieces;

/* Any work that takes a while, and whose result shows whether it was done once. */
static uint64_t work(uint64_t piece)
{
    for (int turn = 0; turn < 1000; turn++)
        piece = piece * 6364136223846793005u + 1442695040888963407u;
    return piece;
}

static void *worker(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&mutex);
    while (next_piece < PIECES) {
        if (next_piece == allowed) {
            pthread_cond_wait(&more, &mutex);
            continue;
        }
        const int piece = next_piece++;
        pthread_mutex_unlock(&mutex);
        const uint64_t result = work((uint64_t)piece);
        own_pieces++;
        pthread_mutex_lock(&mutex);
        sum += result;
        if (++done_pieces == allowed)
            pthread_cond_signal(&half_done);
    }
    pthread_mutex_unlock(&mutex);
    return (void *)(intptr_t)own_pieces;
}

/* The second half, in parent and child alike: whether all threads have done all pieces. */
static int finish(const char *who, const pthread_t *threads)
{
    pthread_mutex_lock(&mutex);
    allowed = PIECES;
    pthread_cond_broadcast(&more);
    pthread_mutex_unlock(&mutex);
    intptr_t by_threads = 0;
    for (int i = 0; i < WORKERS; i++) {
        void *own;
        if (pthread_join(threads[i], &own) != 0)
            return 1;
        by_threads += (intptr_t)own;
    }
    uint64_t expected = 0;
    for (uint64_t piece = 0; piece < PIECES; piece++)
        expected += work(piece);
    char host[256] = "?";
    gethostname(host, sizeof host - 1);
    const int right = sum == expected && by_threads == PIECES;
    printf("%s %d pieces by %d threads, half of them before the fork; %s on %s, pid %d\n", who,
           (int)by_threads, WORKERS, right ? "right" : "WRONG", host, (int)getpid());
    fflush(stdout);
    return right ? 0 : 1;
}

static int fail(void)
{
    fprintf(stderr, "threads: %s\n", mitosis_last_error_message());
    return 1;
}

/* Starts one child of the seed, and waits for it. */
static int fork_it(mitosis_seed *seed, const char *host)
{
    const mitosis_resume_options options = {.size = sizeof options, .host = host};
    mitosis_child_status status = {.size = sizeof status};
    const char *handle;
    mitosis_child *child;
    if (mitosis_seed_handle(seed, &handle) != MITOSIS_OK ||
        mitosis_resume(handle, &options, 1, &child) != MITOSIS_OK)
        return fail();
    const int waited = mitosis_child_wait(child, -1, &status);
    if (waited != MITOSIS_OK)
        fail();
    mitosis_child_free(child);
    if (mitosis_seed_drop(seed, MITOSIS_DROP_AFTER_CHILDREN) != MITOSIS_OK)
        return fail();
    mitosis_seed_free(seed);
    return waited == MITOSIS_OK && status.kind == MITOSIS_END_EXITED ? status.value : 1;
}

int main(int argc, char **argv)
{
    const mitosis_prepare_options all = {.size = sizeof all, .flags = MITOSIS_PREPARE_ALL_THREADS};
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        if (pthread_create(&threads[i], NULL, worker, NULL) != 0)
            return 1;
    pthread_mutex_lock(&mutex);
    while (done_pieces < PREPARE_AT)
        pthread_cond_wait(&half_done, &mutex);
    pthread_mutex_unlock(&mutex);

    mitosis_seed *seed;
    switch (mitosis_prepare(&all, &seed)) {
    case MITOSIS_CHILD:
        return finish("child: ", threads);
    case MITOSIS_PARENT:
        if (fork_it(seed, argc > 1 ? argv[1] : NULL) != 0)
            return 1;
        return finish("parent:", threads);
    default:
        return fail();
    }
}
