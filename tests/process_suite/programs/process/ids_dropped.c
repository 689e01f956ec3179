/* A server that has dropped root for good and kept what lets it reach the agent's socket. */
#include "suite.h"

#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
static pthread_barrier_t there, looked;
static bool other_is_right;

static bool is_right(void)
{
    uid_t ids[3];
    gid_t groups[5];
    struct __user_cap_data_struct now[2];
    return getresuid(&ids[0], &ids[1], &ids[2]) == 0 && getresgid(&groups[0], &groups[1], &groups[2]) == 0
           && ids[0] == 4323 && ids[1] == 4323 && ids[2] == 4323 && groups[0] == 4322 && groups[1] == 4322
           && groups[2] == 4322 && setfsuid(-1) == 4323 && setfsgid(-1) == 4322 && getgroups(5, groups) == 1
           && groups[0] == 4321 && syscall(SYS_capget, &header, now) == 0
           && now[0].permitted == 1U << CAP_DAC_OVERRIDE && now[0].effective == now[0].permitted
           && now[0].inheritable == 0 && now[1].permitted == 0 && setuid(0) == -1 && errno == EPERM;
}

static void *look(void *unused)
{
    pthread_barrier_wait(&there);
    other_is_right = is_right();
    pthread_barrier_wait(&looked);
    return unused;
}

int main(void)
{
    struct __user_cap_data_struct sets[2] = {{1U << CAP_DAC_OVERRIDE, 1U << CAP_DAC_OVERRIDE, 0}};
    struct stat own;
    pthread_t thread;
    about("user, groups and capabilities of a process that is root no more");
    check(prctl(PR_SET_KEEPCAPS, 1) == 0 && setgroups(1, (gid_t[]){4321}) == 0);
    check(setresgid(4322, 4322, 4322) == 0 && setresuid(4323, 4323, 4323) == 0);
    check(syscall(SYS_capset, &header, sets) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
    check(is_right());
    if (suite.way == WHOLE) {
        pthread_barrier_init(&there, NULL, 2);
        pthread_barrier_init(&looked, NULL, 2);
        check(pthread_create(&thread, NULL, look, NULL) == 0);
    }
    prepare_here();
    check(is_right());
    if (suite.way == WHOLE) {
        pthread_barrier_wait(&there);
        pthread_barrier_wait(&looked);
        check(other_is_right);
    }
    check(prctl(PR_GET_DUMPABLE) == 1 && stat("/proc/self/mem", &own) == 0 && own.st_uid == 4323);
    check(access(in_folder("kept"), R_OK) == 0);
    return carried();
}
