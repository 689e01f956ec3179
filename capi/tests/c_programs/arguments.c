/* What needs no agent: arguments that cannot be right, and an agent that is not there (MITOSIS_AGENT names
 * a socket that does not exist). */
#include "check.h"

#include <pthread.h>

static const char HANDLE[] = "mitosis://local/0123456789abcdef#"
                             "00000000000000000000000000000000"
                             "00000000000000000000000000000000";

static void *other_thread(void *unused)
{
    (void)unused;
    CHECK(mitosis_last_error_message()[0] == 0);
    FAILS(mitosis_child_pid(NULL), MITOSIS_ERR_NULL, "child");
    return NULL;
}

static void nulls(void)
{
    mitosis_child *child;
    mitosis_child_status status = {.size = sizeof status};
    const char *text;
    const void *bytes;
    size_t size;
    FAILS(mitosis_fork(NULL, NULL), MITOSIS_ERR_NULL, "'child'");
    FAILS(mitosis_prepare(NULL, NULL), MITOSIS_ERR_NULL, "'seed'");
    FAILS(mitosis_seed_handle(NULL, &text), MITOSIS_ERR_NULL, "'seed'");
    FAILS(mitosis_seed_drop(NULL, MITOSIS_DROP_REVOKE), MITOSIS_ERR_NULL, "'seed'");
    FAILS(mitosis_resume(NULL, NULL, 1, &child), MITOSIS_ERR_NULL, "'handle'");
    FAILS(mitosis_resume(HANDLE, NULL, 1, NULL), MITOSIS_ERR_NULL, "'children'");
    FAILS(mitosis_child_wait(NULL, 0, &status), MITOSIS_ERR_NULL, "'child'");
    FAILS(mitosis_child_kill(NULL, 9), MITOSIS_ERR_NULL, "'child'");
    FAILS(mitosis_child_pid(NULL), MITOSIS_ERR_NULL, "'child'");
    FAILS(mitosis_child_fd(NULL), MITOSIS_ERR_NULL, "'child'");
    FAILS(mitosis_payload(NULL, &size), MITOSIS_ERR_NULL, "'payload'");
    FAILS(mitosis_payload(&bytes, NULL), MITOSIS_ERR_NULL, "'size'");
    CHECK(mitosis_child_host(NULL) == NULL);
    /* As free(NULL). */
    mitosis_child_free(NULL);
    mitosis_seed_free(NULL);
}

static void handles(void)
{
    mitosis_child *children[2] = {(mitosis_child *)1, (mitosis_child *)1};
    FAILS(mitosis_resume("", NULL, 2, children), MITOSIS_ERR_HANDLE, "mitosis://HOST:PORT/SEED#KEY");
    CHECK(children[0] == NULL && children[1] == NULL);
    FAILS(mitosis_resume("mitosis://local/0123456789abcdef#secret", NULL, 1, children),
          MITOSIS_ERR_HANDLE, "64 hex digits");
    CHECK(strstr(mitosis_last_error_message(), "secret") == NULL);
    FAILS(mitosis_resume("\xff", NULL, 1, children), MITOSIS_ERR_ARGUMENT, "UTF-8");
    FAILS(mitosis_resume(HANDLE, NULL, 0, children), MITOSIS_ERR_ARGUMENT, "0 children");
    FAILS(mitosis_resume(HANDLE, NULL, 10001, children), MITOSIS_ERR_ARGUMENT, "10000");
}

static void no_agent(void)
{
    mitosis_child *child = (mitosis_child *)1;
    mitosis_seed *seed = (mitosis_seed *)1;
    FAILS(mitosis_prepare(NULL, &seed), MITOSIS_ERR_NO_AGENT, getenv("MITOSIS_AGENT"));
    CHECK(seed == NULL);
    FAILS(mitosis_resume(HANDLE, NULL, 1, &child), MITOSIS_ERR_NO_AGENT, "mitosis agent");
    CHECK(child == NULL);
    FAILS(mitosis_fork("host-b", &child), MITOSIS_ERR_NO_AGENT, "mitosis agent");
    CHECK(child == NULL);
}

/* A version of the struct that knows more than the library. */
struct newer_options {
    mitosis_prepare_options known;
    uint64_t later[4];
};

static void sizes(void)
{
    mitosis_seed *seed;
    mitosis_prepare_options options = {.size = 0, .agent = "/nonexistent/named"};
    FAILS(mitosis_prepare(&options, &seed), MITOSIS_ERR_ARGUMENT, "sizeof(struct mitosis_prepare_options)");
    options.size = 4097;
    FAILS(mitosis_prepare(&options, &seed), MITOSIS_ERR_ARGUMENT, "4097");
    /* Smaller: the field is not part of it. */
    options.size = sizeof(size_t);
    FAILS(mitosis_prepare(&options, &seed), MITOSIS_ERR_NO_AGENT, getenv("MITOSIS_AGENT"));
    options.size = sizeof options;
    FAILS(mitosis_prepare(&options, &seed), MITOSIS_ERR_NO_AGENT, "/nonexistent/named");
    /* Larger: good as long as nothing unknown is asked for. */
    struct newer_options newer = {.known = options};
    newer.known.size = sizeof newer;
    FAILS(mitosis_prepare(&newer.known, &seed), MITOSIS_ERR_NO_AGENT, "/nonexistent/named");
    newer.later[3] = 1;
    FAILS(mitosis_prepare(&newer.known, &seed), MITOSIS_ERR_ARGUMENT, "does not know");
    options.flags = 0x80;
    FAILS(mitosis_prepare(&options, &seed), MITOSIS_ERR_ARGUMENT, "unknown flags");

    mitosis_child *child;
    const char *environment[] = {"=x", NULL};
    mitosis_resume_options resume = {.size = sizeof resume, .environment = environment};
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_ARGUMENT, "environment");
    resume = (mitosis_resume_options){.size = sizeof resume, .payload_size = 1};
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_NULL, "'payload'");
    resume.payload = "";
    resume.payload_size = (1 << 20) + 1;
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_ARGUMENT, "limit of 1048576");
    resume = (mitosis_resume_options){.size = sizeof resume, .cwd = "usr"};
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_ARGUMENT, "absolute path");
    resume = (mitosis_resume_options){.size = sizeof resume, .hostname = ""};
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_ARGUMENT, "1 to 64 bytes");
    resume = (mitosis_resume_options){.size = sizeof resume, .cgroup = "x"};
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_ARGUMENT, "control group");
    const char *namespaces[] = {"pid=/proc/1/ns/pid", NULL};
    resume = (mitosis_resume_options){.size = sizeof resume, .namespaces = namespaces};
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_ARGUMENT, "names no namespace");
    resume = (mitosis_resume_options){.size = sizeof resume, .flags = 4};
    FAILS(mitosis_resume(HANDLE, &resume, 1, &child), MITOSIS_ERR_ARGUMENT, "unknown flags");
}

int main(void)
{
    const void *bytes = "";
    size_t size = 1;
    CHECK(mitosis_last_error_message()[0] == 0);
    nulls();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
    handles();
    no_agent();
    sizes();

    CHECK(strcmp(mitosis_strerror(MITOSIS_OK), "no error") == 0);
    CHECK(strcmp(mitosis_strerror(MITOSIS_ERR_SEED_GONE), "the seed is gone") == 0);
    CHECK(strcmp(mitosis_strerror(-9999), "unknown error") == 0);
    CHECK(strchr(mitosis_version(), '.') != NULL);
    CHECK(mitosis_generation() == 0 && mitosis_clock_delta_ns() == 0);
    CHECK(mitosis_child_index() == MITOSIS_ERR_ARGUMENT);
    CHECK(mitosis_payload(&bytes, &size) == MITOSIS_OK && bytes == NULL && size == 0);
    return 0;
}
