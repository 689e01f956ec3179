/* The peer of a miss: a bare loop on /dev/fuse that answers each READ from one static page, blocking in
 * read(2), on the CPU of the process that touches. One run for each line of standard input; prints the
 * median of its touches in ns. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "touch.h"

#define FILE_BYTES (1ul << 46)
#define MAX_READ (128ul << 10)
#define READAHEAD (16u << 10)

static int device;
static char answer[MAX_READ];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void reply(uint64_t unique, int error, const void *body, size_t bytes) {
    struct fuse_out_header head = {sizeof head + bytes, error, unique};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)body, bytes}};
    if (writev(device, parts, bytes ? 2 : 1) < 0 && errno != ENOENT)
        fail("answer");
}

static void serve(struct fuse_in_header *request) {
    void *body = request + 1;
    switch (request->opcode) {
    case FUSE_READ:
        reply(request->unique, 0, answer, ((struct fuse_read_in *)body)->size);
        return;
    case FUSE_INIT: {
        struct fuse_init_in *in = body;
        struct fuse_init_out out = {
            .major = 7, .minor = 31, .max_readahead = READAHEAD, .max_background = 64,
            .congestion_threshold = 48, .max_write = MAX_READ, .time_gran = 1,
            .max_pages = MAX_READ / PAGE,
            .flags = in->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES |
                                  FUSE_NO_OPEN_SUPPORT | FUSE_ABORT_ERROR)};
        reply(request->unique, 0, &out, sizeof out);
        return;
    }
    case FUSE_GETATTR: {
        struct fuse_attr_out out = {.attr_valid = 1u << 30,
            .attr = {.ino = 1, .nlink = 1, .mode = S_IFREG | 0444, .size = FILE_BYTES, .blksize = 4096}};
        reply(request->unique, 0, &out, sizeof out);
        return;
    }
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        return;
    default:
        reply(request->unique, -ENOSYS, NULL, 0);
    }
}

static void *loop(void *unused) {
    static char message[MAX_READ + 8192];
    (void)unused;
    for (;;) {
        ssize_t got = read(device, message, sizeof message);
        if (got > 0)
            serve((struct fuse_in_header *)message);
        else if (errno != EINTR && errno != ENOENT && errno != EAGAIN)
            return NULL;
    }
}

static int mount_fuse(void) {
    char text[32];
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device < 0)
        fail("/dev/fuse");
    int context = syscall(SYS_fsopen, "fuse", 1);
    snprintf(text, sizeof text, "%d", device);
    const char *settings[][2] = {{"source", "bare"}, {"fd", text}, {"rootmode", "100444"},
        {"user_id", "0"}, {"group_id", "0"}, {"max_read", "131072"}};
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (syscall(SYS_fsconfig, context, 1, settings[i][0], settings[i][1], 0) < 0)
            fail(settings[i][0]);
    if (syscall(SYS_fsconfig, context, 6, NULL, NULL, 0) < 0)
        fail("fsconfig(create)");
    int mount = syscall(SYS_fsmount, context, 1, 2 | 4);
    if (mount < 0)
        fail("fsmount");
    return mount;
}

/* The touching process maps the file at a place of its own for each run, so that each page is missed. */
static void run(int file, long number) {
    off_t at = (off_t)number * (1l << 30);
    volatile char *view = mmap(NULL, TOUCH_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, at);
    if (view == MAP_FAILED)
        fail("mmap");
    printf("%ld\n", touch_at(view));
    fflush(stdout);
    munmap((void *)view, TOUCH_BYTES);
}

int main(void) {
    char path[64], line[64];
    pthread_t thread;
    memset(answer, 7, sizeof answer);
    int mount = mount_fuse();
    if (pthread_create(&thread, NULL, loop, NULL) != 0)
        fail("thread");
    snprintf(path, sizeof path, "/proc/self/fd/%d", mount);
    int file = open(path, O_RDONLY);
    struct stat stat;
    if (file < 0 || fstat(file, &stat) != 0)
        fail("the file");
    close(dup(file)); /* FLUSH is refused once and never asked again */
    pid_t child = fork();
    if (child == 0) {
        close(device);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (long number = 1; fgets(line, sizeof line, stdin) != NULL; number++)
            run(file, number);
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child)
        fail("the touching process");
    return status != 0;
}
