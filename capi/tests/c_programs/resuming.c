/* A resume that is waited for by a descriptor: of an agent that only talks (the test), and of one that is silent. */
#include "check.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int is_readable(int fd, int timeout_ms)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    return poll(&entry, 1, timeout_ms);
}

/* Nobody has accepted yet: it is under way for as long as this program likes. */
static void silent_agent(const char *handle, const char *path)
{
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);

    mitosis_resume_options options = {.size = sizeof options, .agent = path};
    mitosis_resuming *resuming;
    mitosis_child *child = (mitosis_child *)&options;
    CHECK(mitosis_resume_start(handle, &options, 1, &resuming) == MITOSIS_OK && resuming);
    int fd = mitosis_resume_fd(resuming);
    CHECK(fd >= 0 && is_readable(fd, 0) == 0);
    FAILS(mitosis_resume_finish(resuming, 0, &child), MITOSIS_ERR_TIMEOUT, "0 ms");
    CHECK(child == NULL);
    FAILS(mitosis_resume_finish(resuming, 5, &child), MITOSIS_ERR_TIMEOUT, "5 ms");

    /* A plain fork may free what its parent has, and nothing else. */
    pid_t pid = fork();
    if (pid == 0) {
        FAILS(mitosis_resume_fd(resuming), MITOSIS_ERR_OTHER_PROCESS, "resume");
        FAILS(mitosis_resume_finish(resuming, 0, &child), MITOSIS_ERR_OTHER_PROCESS, "resume");
        mitosis_resume_free(resuming);
        _exit(0);
    }
    int code = -1;
    CHECK(waitpid(pid, &code, 0) == pid && code == 0);

    CHECK(close(accept(listener, NULL, NULL)) == 0);
    CHECK(is_readable(fd, 10000) == 1);
    FAILS(mitosis_resume_finish(resuming, -1, &child), MITOSIS_ERR_AGENT_CLOSED, "closed");
    FAILS(mitosis_resume_finish(resuming, -1, &child), MITOSIS_ERR_ARGUMENT, "finished");
    FAILS(mitosis_resume_fd(resuming), MITOSIS_ERR_ARGUMENT, "finished");
    mitosis_resume_free(resuming);

    /* One that is freed is hung up: the agent reads what was asked, and then the end. */
    CHECK(mitosis_resume_start(handle, &options, 1, &resuming) == MITOSIS_OK);
    mitosis_resume_free(resuming);
    int asked = accept(listener, NULL, NULL);
    char bytes[4096];
    ssize_t got;
    while ((got = read(asked, bytes, sizeof bytes)) > 0)
        ;
    CHECK(got == 0 && close(asked) == 0 && close(listener) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    mitosis_resuming *resuming = (mitosis_resuming *)&argc;
    FAILS(mitosis_resume_start(NULL, NULL, 1, &resuming), MITOSIS_ERR_NULL, "handle");
    CHECK(resuming == NULL);
    FAILS(mitosis_resume_start("x", NULL, 1, &resuming), MITOSIS_ERR_HANDLE, "handle");
    FAILS(mitosis_resume_start(argv[1], NULL, 10001, &resuming), MITOSIS_ERR_ARGUMENT, "10001");
    FAILS(mitosis_resume_start(argv[1], NULL, 0, &resuming), MITOSIS_ERR_ARGUMENT, "0 children");
    FAILS(mitosis_resume_start(argv[1], NULL, 1, NULL), MITOSIS_ERR_NULL, "resuming");
    FAILS(mitosis_resume_fd(NULL), MITOSIS_ERR_NULL, "resuming");
    FAILS(mitosis_resume_finish(NULL, 0, NULL), MITOSIS_ERR_NULL, "resuming");
    mitosis_resume_free(NULL);

    const char *environment[] = {"A=1", "B", NULL};
    const char *namespaces[] = {"net=/run/netns/x", NULL};
    const char *given[] = {"worker", "", NULL};
    const char *ids[] = {"0:7:1", NULL};
    mitosis_resume_options options = {.size = sizeof options, .payload = "mail", .payload_size = 4,
                                      .environment = environment,
                                      .flags = MITOSIS_RESUME_CLOCK_FROZEN, .cwd = "/work",
                                      .hostname = "other", .cgroup = "/sys/fs/cgroup/x",
                                      .namespaces = namespaces, .argv = given, .id_map = ids};
    mitosis_child *children[3];
    CHECK(mitosis_resume_start(argv[1], &options, 3, &resuming) == MITOSIS_OK);
    CHECK(is_readable(mitosis_resume_fd(resuming), 10000) == 1);
    CHECK(mitosis_resume_finish(resuming, 0, children) == MITOSIS_OK);
    mitosis_resume_free(resuming);
    CHECK(mitosis_child_pid(children[0]) == 100 && mitosis_child_pid(children[2]) == 102);
    mitosis_child_status status = {.size = sizeof status};
    CHECK(mitosis_child_wait(children[0], -1, &status) == MITOSIS_OK && status.value == 7);
    for (int i = 0; i < 3; i++)
        mitosis_child_free(children[i]);

    /* The agent refuses the second time. */
    CHECK(mitosis_resume_start(argv[1], NULL, 1, &resuming) == MITOSIS_OK);
    FAILS(mitosis_resume_finish(resuming, -1, children), MITOSIS_ERR_KEY_REFUSED, "the agent's words");
    CHECK(children[0] == NULL);
    mitosis_resume_free(resuming);

    silent_agent(argv[1], argv[2]);
    return 0;
}
