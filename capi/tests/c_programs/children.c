/* Children of an agent that only talks (the test): the first exits with 7, the second loses a page, the
 * third does not end before it is killed. */
#include "check.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

struct older_status {
    size_t size;
    int kind, value;
    char after[8];
};

struct newer_status {
    mitosis_child_status known;
    uint64_t later;
};

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    mitosis_child *children[3];
    const char *environment[] = {"A=1", "B", NULL};
    const char *namespaces[] = {"net=/run/netns/x", NULL};
    const char *given[] = {"worker", "", NULL};
    const char *ids[] = {"0:7:1", NULL};
    mitosis_resume_options options = {.size = sizeof options, .payload = "mail", .payload_size = 4,
                                      .environment = environment, .host = "host-b:7370",
                                      .flags = MITOSIS_RESUME_CLOCK_FROZEN, .cwd = "/work",
                                      .hostname = "other", .cgroup = "/sys/fs/cgroup/x",
                                      .namespaces = namespaces, .argv = given, .id_map = ids};
    CHECK(mitosis_resume(argv[1], &options, 3, children) == MITOSIS_OK);
    CHECK(mitosis_child_pid(children[0]) == 100 && mitosis_child_pid(children[2]) == 102);
    CHECK(strcmp(mitosis_child_host(children[0]), "far") == 0);

    mitosis_child_status status = {.size = 3};
    FAILS(mitosis_child_wait(children[0], -1, &status), MITOSIS_ERR_ARGUMENT, "mitosis_child_status");
    status.size = sizeof status;
    CHECK(mitosis_child_wait(children[0], -1, &status) == MITOSIS_OK);
    CHECK(status.kind == MITOSIS_END_EXITED && status.value == 7 && status.size == sizeof status);
    CHECK(strcmp(status.message, "exited with status 7") == 0);
    struct pollfd ended = {.fd = mitosis_child_fd(children[1]), .events = POLLIN};
    CHECK(ended.fd >= 0 && poll(&ended, 1, 10000) == 1);
    CHECK(mitosis_child_wait(children[1], 10000, &status) == MITOSIS_OK);
    CHECK(status.kind == MITOSIS_END_PAGE_LOST && status.value == SIGBUS);
    CHECK(strcmp(status.message, "page 0x1000") == 0);

    /* Statuses of an older and a newer version. */
    struct older_status older = {.size = 16};
    memset(older.after, 7, sizeof older.after);
    CHECK(mitosis_child_wait(children[0], 0, (mitosis_child_status *)&older) == MITOSIS_OK);
    CHECK(older.kind == MITOSIS_END_EXITED && older.value == 7 && older.after[0] == 7);
    struct newer_status newer = {.known = {.size = sizeof newer}, .later = 7};
    CHECK(mitosis_child_wait(children[0], 0, &newer.known) == MITOSIS_OK);
    CHECK(newer.known.value == 7 && newer.later == 0);

    FAILS(mitosis_child_wait(children[2], 0, &status), MITOSIS_ERR_TIMEOUT, "0 ms");
    FAILS(mitosis_child_wait(children[2], 5, &status), MITOSIS_ERR_TIMEOUT, "5 ms");
    FAILS(mitosis_child_kill(children[2], 0), MITOSIS_ERR_ARGUMENT, "signal 0");
    FAILS(mitosis_child_kill(children[2], 65), MITOSIS_ERR_ARGUMENT, "signal 65");

    /* A plain fork may free what its parent has, and nothing else. */
    pid_t pid = fork();
    if (pid == 0) {
        FAILS(mitosis_child_wait(children[2], 0, &status), MITOSIS_ERR_OTHER_PROCESS, "fork");
        mitosis_child_free(children[2]);
        _exit(0);
    }
    int code = -1;
    CHECK(waitpid(pid, &code, 0) == pid && code == 0);

    CHECK(mitosis_child_kill(children[2], SIGKILL) == MITOSIS_OK);
    CHECK(mitosis_child_wait(children[2], 10000, &status) == MITOSIS_OK);
    CHECK(status.kind == MITOSIS_END_SIGNALLED && status.value == SIGKILL);
    for (int i = 0; i < 3; i++)
        mitosis_child_free(children[i]);

    /* The agent refuses the second time. */
    FAILS(mitosis_resume(argv[1], NULL, 1, children), MITOSIS_ERR_KEY_REFUSED, "the agent's words");
    CHECK(children[0] == NULL);
    return 0;
}
