/*
 * Hooks: a log file is closed before the fork and opened again on either side, each side in its own way.
 * "fails" and "hangs" show what becomes of a child whose hook does: it ends with status 70.
 *
 *     cc hooks.c -lmitosis -o hooks && ./hooks good && ./hooks fails && ./hooks hangs
 */
#include <mitosis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHILD_STATUS = 9, HALF_CHILD = 70, SHORT_MS = 200 };

struct log {
    const char *kind;
    FILE *file;
    char name[64];
};

static int open_log(struct log *log, unsigned long long generation)
{
    snprintf(log->name, sizeof log->name, "/tmp/mitosis-hooks-%llu-%d", generation, (int)getpid());
    log->file = fopen(log->name, "w");
    return log->file == NULL;
}

static int close_log(void *data)
{
    struct log *log = data;
    const int failed = fclose(log->file) | unlink(log->name);
    log->file = NULL;
    return failed;
}

static int open_again(void *data)
{
    return open_log(data, mitosis_generation());
}

/* What children do first is done once where nobody sees it: they are given the memory that it touches. */
static int rehearse(void *data)
{
    const struct log *log = data;
    char line[64];
    snprintf(line, sizeof line, "%s of generation %d", log->kind, (int)mitosis_generation());
    /* For the test of this example: a rehearsal leaves no traces else. */
    const char *note = getenv("REHEARSAL_NOTE");
    return note != NULL && mkdir(note, 0700);
}

static int good_or_bad(void *data)
{
    const struct log *log = data;
    if (strcmp(log->kind, "hangs") == 0)
        for (;;)
            pause();
    return strcmp(log->kind, "fails") == 0 ? 3 : 0;
}

static int in_child(struct log *log)
{
    const char *told = getenv("MITOSIS_GENERATION");
    fprintf(log->file, "child\n");
    printf("child:  its log is open, environment and mitosis_generation() agree: %s\n",
           told != NULL && strtoull(told, NULL, 10) == mitosis_generation() ? "yes" : "no");
    return close_log(log) ? 1 : CHILD_STATUS;
}

static int in_parent(struct log *log, mitosis_child *child)
{
    mitosis_child_status status = {.size = sizeof status};
    const int expected = strcmp(log->kind, "good") == 0 ? CHILD_STATUS : HALF_CHILD;
    if (mitosis_child_wait(child, -1, &status) != MITOSIS_OK) {
        fprintf(stderr, "hooks: %s\n", mitosis_last_error_message());
        return 1;
    }
    fprintf(log->file, "parent\n");
    printf("parent: its log is open; the child %s, as it should: %s\n", status.message,
           status.kind == MITOSIS_END_EXITED && status.value == expected ? "yes" : "no");
    mitosis_child_free(child);
    return close_log(log) || status.kind != MITOSIS_END_EXITED || status.value != expected;
}

int main(int argc, char **argv)
{
    static struct log log;
    log.kind = argc > 1 ? argv[1] : "good";
    if (open_log(&log, 0) != 0 || mitosis_rehearse(rehearse, &log) != MITOSIS_OK ||
        mitosis_before_prepare(close_log, &log, 0) != MITOSIS_OK ||
        mitosis_after_prepare(open_again, &log, 0) != MITOSIS_OK ||
        mitosis_after_resume(good_or_bad, &log, SHORT_MS) != MITOSIS_OK ||
        mitosis_after_resume(open_again, &log, 0) != MITOSIS_OK) {
        fprintf(stderr, "hooks: %s\n", mitosis_last_error_message());
        return 1;
    }
    fflush(NULL);
    mitosis_child *child;
    switch (mitosis_fork(argc > 2 ? argv[2] : NULL, &child)) {
    case MITOSIS_CHILD: {
        const int status = in_child(&log);
        fflush(NULL);
        _exit(status);
    }
    case MITOSIS_PARENT:
        return in_parent(&log, child);
    default:
        fprintf(stderr, "hooks: %s\n", mitosis_last_error_message());
        return 1;
    }
}
