/*
 * Mitosis: remote fork in user space.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     mitosis_child *child;
 *     switch (mitosis_fork("host-b", &child)) {
 *     case MITOSIS_CHILD:  serve(model); _exit(0);        // on host-b, with all memory of this process
 *     case MITOSIS_PARENT: mitosis_child_wait(child, -1, &status); break;
 *     default:             fprintf(stderr, "%s\n", mitosis_last_error_message());
 *     }
 *
 * Link with -lmitosis. A function that can fail returns a negative code (mitosis_err), and
 * mitosis_last_error_message() tells this thread what failed, on what, and what to do. No function
 * starts a thread, but for the time of a hook that has a limit, and none changes what signals do.
 *
 * What every call demands: strings end with a zero byte and are UTF-8 (paths may be any bytes); a
 * pointer is NULL only where that is said; an object is used by one thread at a time unless its
 * description allows more, and not after it was freed. Objects of a parent exist in its forks, too,
 * where only freeing them is of use.
 *
 * Structs with a size field grow: set them to zero, then size to sizeof, then what you need.
 */

/* Made from capi/src by capi/check-header.sh --write: edit that. */


#ifndef MITOSIS_H
#define MITOSIS_H

#include <stddef.h>
#include <stdint.h>

/**
 * What mitosis_fork() and mitosis_prepare() return in a child.
 */
#define MITOSIS_CHILD 0

/**
 * What mitosis_fork() and mitosis_prepare() return in the process that called.
 */
#define MITOSIS_PARENT 1

/**
 * For mitosis_prepare_options.flags: where the kernel offers no syscall user dispatch, accept that the
 * seed shows in wait(2) and sends SIGCHLD when it ends.
 */
#define MITOSIS_PREPARE_ALLOW_VISIBLE_SEED 1

/**
 * For mitosis_prepare_options.flags: all threads live on in children, each where it stood, and not the caller
 * alone (whole-process mode). Open files are carried where they can be; handlers of pthread_atfork(3) do not run.
 */
#define MITOSIS_PREPARE_ALL_THREADS 2

/**
 * For mitosis_prepare_options.flags: children have the files that are open here, at the same numbers, where
 * they can be made again; "mitosis inspect" tells of each what becomes of it. Without, and without
 * MITOSIS_PREPARE_ALL_THREADS, numbers above 2 answer EBADF there.
 */
#define MITOSIS_PREPARE_CARRY_FILES 4

/**
 * For mitosis_resume_options.flags: the seed ends with the last of these children.
 */
#define MITOSIS_RESUME_SEED_ENDS_WITH_CHILDREN 1

/**
 * For mitosis_resume_options.flags: CLOCK_MONOTONIC, CLOCK_BOOTTIME and timers go on in the children from where they stood
 * at prepare. Without it they are as in their parent now, and what was to happen meanwhile happens at once.
 */
#define MITOSIS_RESUME_CLOCK_FROZEN 2

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Connections to other processes or hosts, and messages that lie in one of the process's own.
 */
#define MITOSIS_LOSS_CONNECTIONS 1

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Pipes and fifos whose other end is another process's.
 */
#define MITOSIS_LOSS_PIPES 2

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Pidfds of other processes.
 */
#define MITOSIS_LOSS_PROCESSES 4

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Devices, userfaultfds, perf events, BPF objects.
 */
#define MITOSIS_LOSS_DEVICES 8

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Files without a name of more than 256 KiB, and directories without a name.
 */
#define MITOSIS_LOSS_UNNAMED 16

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Locks and leases on files: the child has the file without the lock.
 */
#define MITOSIS_LOSS_LOCKS 32

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Watches of inotify.
 */
#define MITOSIS_LOSS_WATCHES 64

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Pseudo-terminals whose other side is another process's.
 */
#define MITOSIS_LOSS_TERMINALS 128

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Memory that another living process maps, too. Told of only where it is refused.
 */
#define MITOSIS_LOSS_SHARED_MEMORY 256

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Files that were mapped shared and could be written, where the child's host has not the same: the child has a copy. Where it is refused, mitosis_resume() fails there.
 */
#define MITOSIS_LOSS_SHARED_FILES 512

/**
 * For mitosis_prepare_options.refuse, .close and mitosis_loss.kind. An io_uring: its rings are shared with the kernel. Refused unless mitosis_prepare_options.close has it.
 */
#define MITOSIS_LOSS_IO_URING 1024

/**
 * For mitosis_prepare_options.refuse and mitosis_loss.kind. Threads other than the caller of the class SCHED_DEADLINE, which are of the ordinary class in the child, and a cookie of core scheduling, which it has not.
 */
#define MITOSIS_LOSS_SCHEDULING 2048

/**
 * For the timeout_ms of a hook: it may take as long as it will.
 */
#define MITOSIS_HOOK_NO_TIMEOUT 4294967295

/**
 * What a function returns that has nothing else to tell.
 */
#define MITOSIS_OK 0

/**
 * What a function that fails returns. A number keeps its meaning for ever; later versions add numbers,
 * so treat one that you do not know as a failure of its own kind.
 */
typedef enum mitosis_err {
    /**
     * A defect of libmitosis: please report it with its message. Any function may return it.
     */
    MITOSIS_ERR_PANIC = -1,
    /**
     * A pointer that must not be NULL is NULL; the message names it.
     */
    MITOSIS_ERR_NULL = -2,
    /**
     * An argument cannot be right; the message says which and why.
     */
    MITOSIS_ERR_ARGUMENT = -3,
    /**
     * The text is no handle: it must read `mitosis://HOST:PORT/SEED#KEY`.
     */
    MITOSIS_ERR_HANDLE = -4,
    /**
     * The object was made by another process, of which this one is a fork.
     */
    MITOSIS_ERR_OTHER_PROCESS = -5,
    /**
     * The time is over; nothing has happened.
     */
    MITOSIS_ERR_TIMEOUT = -6,
    /**
     * Something else, in an agent as a rule; the message tells. Any function that asks an agent may return it.
     */
    MITOSIS_ERR_INTERNAL = -7,
    /**
     * No agent listens on this host: start one with `mitosis agent`, or set MITOSIS_AGENT to its socket.
     */
    MITOSIS_ERR_NO_AGENT = -20,
    /**
     * The agent closed the connection: it was stopped, or its log says why.
     */
    MITOSIS_ERR_AGENT_CLOSED = -21,
    /**
     * The agent did not answer in time: its log may say why.
     */
    MITOSIS_ERR_AGENT_SILENT = -22,
    /**
     * No agent of this process's own could be started; the message repeats what it said.
     */
    MITOSIS_ERR_AGENT_START = -23,
    /**
     * The connection to the agent failed otherwise (descriptors or memory exhausted).
     */
    MITOSIS_ERR_CONNECTION = -24,
    /**
     * Agent and library, or the two agents, are of versions that do not understand each other.
     */
    MITOSIS_ERR_PROTOCOL = -25,
    /**
     * The seed is gone: dropped, ended, or never there.
     */
    MITOSIS_ERR_SEED_GONE = -40,
    /**
     * The key of the handle is wrong or missing: copy the handle whole. Or the agent does not do that
     * for this user; the message says what.
     */
    MITOSIS_ERR_KEY_REFUSED = -41,
    /**
     * This process cannot be a seed; the message names what stands in the way.
     */
    MITOSIS_ERR_NOT_FORKABLE = -42,
    /**
     * The host cannot run the seed: another architecture, fewer CPU features, a file that differs.
     */
    MITOSIS_ERR_HOST_UNFIT = -43,
    /**
     * The other host does not answer.
     */
    MITOSIS_ERR_UNREACHABLE = -44,
    /**
     * The cluster secret is missing on one host, or differs.
     */
    MITOSIS_ERR_SECRET = -45,
    /**
     * A limit is reached; the message names it.
     */
    MITOSIS_ERR_LIMIT = -46,
    /**
     * The host lacks /dev/fuse, a capability or a kernel feature.
     */
    MITOSIS_ERR_MISSING = -47,
    /**
     * The child is gone.
     */
    MITOSIS_ERR_CHILD_GONE = -48,
    /**
     * Another thread has been preparing for too long: a fork handler of some library hangs.
     */
    MITOSIS_ERR_BUSY = -60,
    /**
     * The kernel offers no syscall user dispatch: allow it, or set MITOSIS_PREPARE_ALLOW_VISIBLE_SEED.
     */
    MITOSIS_ERR_NO_DISPATCH = -61,
    /**
     * A library's fork handler kept the seed from being hidden from wait(2).
     */
    MITOSIS_ERR_SEED_VISIBLE = -62,
    /**
     * Shared memory that cannot be copied; the message names the mapping.
     */
    MITOSIS_ERR_SHARED_MEMORY = -63,
    /**
     * No memory for the seed's description.
     */
    MITOSIS_ERR_NO_MEMORY = -64,
    /**
     * fork(2) failed.
     */
    MITOSIS_ERR_FORK = -65,
    /**
     * libc has no memory to register fork handlers.
     */
    MITOSIS_ERR_FORK_HANDLERS = -66,
    /**
     * The other threads could not be stopped, for MITOSIS_PREPARE_ALL_THREADS; the message names the thread.
     */
    MITOSIS_ERR_THREADS = -67,
    /**
     * A function of mitosis_before_prepare() or mitosis_after_prepare() failed; the message names it.
     */
    MITOSIS_ERR_HOOK = -68,
} mitosis_err;

/**
 * How a child ended: the kinds of mitosis_child_status.
 */
typedef enum mitosis_end {
    /**
     * It exited; value is its status, as of exit(3).
     */
    MITOSIS_END_EXITED = 1,
    /**
     * A signal killed it; value is the signal.
     */
    MITOSIS_END_SIGNALLED = 2,
    /**
     * A page of its memory could not be had, and SIGBUS killed it (value); message says which page.
     */
    MITOSIS_END_PAGE_LOST = 3,
    /**
     * Its host's agent, or this one's, is gone: nothing is known of it; message says more. value is 0.
     */
    MITOSIS_END_HOST_LOST = 4,
} mitosis_end;

/**
 * How mitosis_seed_drop() ends a seed.
 */
typedef enum mitosis_drop {
    /**
     * No new children; the seed ends after its last one.
     */
    MITOSIS_DROP_AFTER_CHILDREN = 0,
    /**
     * The seed's pages cannot be had from now on; children that touch a missing one get SIGBUS.
     */
    MITOSIS_DROP_REVOKE = 1,
} mitosis_drop;

/**
 * A child that this process has started, wherever it runs. Several threads may use it at once.
 */
typedef struct mitosis_child mitosis_child;

/**
 * A resume that is under way. One thread uses it at a time.
 */
typedef struct mitosis_resuming mitosis_resuming;

/**
 * A seed: a frozen copy of this process, which outlives this object.
 */
typedef struct mitosis_seed mitosis_seed;

/**
 * How to prepare. Set all to zero, then size, then what you need; zero is the default everywhere.
 */
typedef struct mitosis_prepare_options {
    /**
     * sizeof(struct mitosis_prepare_options).
     */
    size_t size;
    /**
     * The socket of this host's agent; NULL: $MITOSIS_AGENT, else $XDG_RUNTIME_DIR/mitosis/agent.sock if
     * it is there, else /run/mitosis/agent.sock.
     */
    const char *agent;
    /**
     * Bytes of shared memory that are copied while the caller stands still; with more mitosis_prepare()
     * fails. 0: 64 MiB.
     */
    uint64_t shared_copy_limit;
    /**
     * MITOSIS_PREPARE_* flags.
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * MITOSIS_LOSS_* bits: with a loss of such a kind there is to be no seed: mitosis_seed_handle() then fails, and
     * its message names each descriptor, what it is and who holds the other end. What is not refused is closed in
     * children, which learn of it by mitosis_lost(). Of carried files alone.
     */
    uint64_t refuse;
    /**
     * MITOSIS_LOSS_* bits: kinds that are closed in children, of those that are refused without a word
     * (MITOSIS_LOSS_IO_URING). A hook of mitosis_after_resume() may make them again.
     */
    uint64_t close;
} mitosis_prepare_options;

/**
 * How to resume. Set all to zero, then size, then what you need; zero is the default everywhere.
 */
typedef struct mitosis_resume_options {
    /**
     * sizeof(struct mitosis_resume_options).
     */
    size_t size;
    /**
     * The socket of this host's agent; NULL: as in mitosis_prepare_options.
     */
    const char *agent;
    /**
     * Where the children run: "host" or "host:port"; NULL: this host.
     */
    const char *host;
    /**
     * What mitosis_payload() tells in each child; NULL if payload_size is 0.
     */
    const void *payload;
    /**
     * Its bytes; with the environment at most 1 MiB.
     */
    size_t payload_size;
    /**
     * Changes of the children's environment, ended by NULL: "NAME=VALUE" sets, "NAME" unsets. NULL: none.
     */
    const char *const *environment;
    /**
     * Three descriptors, the children's stdin, stdout and stderr, which stay the caller's; NULL: the
     * caller's own 0, 1 and 2.
     */
    const int *stdio;
    /**
     * MITOSIS_RESUME_* flags.
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Where sockets of the seed's listen in the children, ended by NULL: "all", "PORT", "PORT=PORT", "unix:/PATH" or
     * "unix:/PATH=/PATH". They do before any child runs; to one that is not named no connection comes. NULL: none.
     */
    const char *const *listen;
    /**
     * The children's working directory, an absolute path that is there on their host; NULL: the seed's, if it is there,
     * else "/".
     */
    const char *cwd;
    /**
     * What the children find as their host's name; NULL: the host's own.
     */
    const char *hostname;
    /**
     * The control group that the children enter, a directory of their host ("/sys/fs/cgroup/..."); NULL: the agent's.
     */
    const char *cgroup;
    /**
     * Namespaces of their host that the children join, one of a kind, ended by NULL: "net=/run/netns/NAME"; kinds are cgroup,
     * ipc, net, uts and mnt. NULL: none.
     */
    const char *const *namespaces;
    /**
     * What /proc/self/cmdline and ps(1) tell of the children, ended by NULL, the program's name first; at most 128 KiB. The
     * argv of main() stays what it is. NULL: as in the seed.
     */
    const char *const *argv;
    /**
     * The id map of a user namespace that the children are in, ended by NULL: "INSIDE:OUTSIDE:COUNT" ("0:100000:65536"), users and
     * groups alike. For a seed of one thread. NULL: they are in their agent's.
     */
    const char *const *id_map;
} mitosis_resume_options;

/**
 * A child's end. Set size before the call; the rest is written by it.
 */
typedef struct mitosis_child_status {
    /**
     * sizeof(struct mitosis_child_status).
     */
    size_t size;
    /**
     * MITOSIS_END_*; treat one that you do not know as MITOSIS_END_HOST_LOST.
     */
    int kind;
    /**
     * As its kind says.
     */
    int value;
    /**
     * For people. Belongs to the child, valid until mitosis_child_free().
     */
    const char *message;
} mitosis_child_status;

/**
 * What the process had and this child has not.
 */
typedef struct mitosis_loss {
    /**
     * sizeof(struct mitosis_loss).
     */
    size_t size;
    /**
     * One of MITOSIS_LOSS_*; treat one that you do not know as a device.
     */
    uint64_t kind;
    /**
     * Its number, which is closed or hung up; -1: none, it is memory.
     */
    int32_t fd;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * What it was, for people and for connecting again: the address of a peer, a path. Valid for the life of the
     * process.
     */
    const char *was;
} mitosis_loss;

/**
 * A function that runs around a prepare or in a child. data is what it was registered with.
 *
 * RETURN VALUE: 0 to go on; anything else is a failure.
 */
typedef int (*mitosis_hook)(void *data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Forks this process onto a host.
 *
 * The calling thread goes on in a new process on that host, with this process's memory, as after
 * fork(2): other threads are not there, and handlers of pthread_atfork(3) run. Memory is pulled when it
 * is touched. The child has stdin, stdout and stderr of this process, relayed; its other descriptors are
 * closed. If no agent runs on this host, one is started for this process and ends with it. Flush stdio
 * first, as before fork(2).
 *
 * host:  "host" or "host:port" of the agent there; NULL: this host.
 * child: receives the child in the parent, NULL in the child and on failure. Free it with
 *        mitosis_child_free().
 *
 * RETURN VALUE: MITOSIS_PARENT (1) in the caller, MITOSIS_CHILD (0) in the child. On failure a negative
 * code, in the caller alone: there is no child then.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           child is NULL.
 * MITOSIS_ERR_ARGUMENT       host is not UTF-8, or names no host.
 * MITOSIS_ERR_AGENT_START    no agent runs and none could be started.
 * MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION
 *                            the agent of this host could not be asked.
 * MITOSIS_ERR_UNREACHABLE    the other host does not answer.
 * MITOSIS_ERR_SECRET         the hosts have no cluster secret in common.
 * MITOSIS_ERR_PROTOCOL       versions do not understand each other.
 * MITOSIS_ERR_NOT_FORKABLE   this process cannot be a seed.
 * MITOSIS_ERR_HOST_UNFIT     the host cannot run this process.
 * MITOSIS_ERR_MISSING        a host lacks /dev/fuse, a capability or a kernel feature.
 * MITOSIS_ERR_LIMIT          a limit is reached.
 * MITOSIS_ERR_SEED_GONE      the seed ended before the child was there.
 * MITOSIS_ERR_BUSY, MITOSIS_ERR_NO_DISPATCH, MITOSIS_ERR_SEED_VISIBLE, MITOSIS_ERR_SHARED_MEMORY,
 * MITOSIS_ERR_NO_MEMORY, MITOSIS_ERR_FORK, MITOSIS_ERR_FORK_HANDLERS, MITOSIS_ERR_HOOK
 *                            as for mitosis_prepare().
 */
int mitosis_fork(const char *host,
                 struct mitosis_child **child);

/**
 * Makes a seed of this process: a frozen copy, of which mitosis_resume() starts children.
 *
 * Returns once in the caller, after about the time of a fork(2), and once in every child, whenever and
 * wherever it is started. Only the calling thread lives on in children, unless flags have
 * MITOSIS_PREPARE_ALL_THREADS. The caller sees nothing of the seed: no SIGCHLD, nothing in wait(2). The seed
 * lives until it is dropped or the agent is shut down.
 *
 * With MITOSIS_PREPARE_ALL_THREADS every other thread stands still for some milliseconds, as in the handler of a
 * signal: restartable system calls go on, poll(2), epoll_wait(2) and nanosleep(2) fail with EINTR, here and in
 * children.
 *
 * options: NULL for the defaults.
 * seed:    receives the seed in the parent, NULL in children and on failure. Free it with
 *          mitosis_seed_free().
 *
 * RETURN VALUE: MITOSIS_PARENT (1) in the caller, MITOSIS_CHILD (0) in a child. On failure a negative
 * code, in the caller alone, which goes on as if it had not called. What the agent finds wrong later is
 * told by mitosis_seed_handle().
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           seed is NULL.
 * MITOSIS_ERR_ARGUMENT       options: size, flags, or a field that this version does not know.
 * MITOSIS_ERR_NO_AGENT       no agent listens.
 * MITOSIS_ERR_CONNECTION     the connection to the agent could not be made ready.
 * MITOSIS_ERR_NOT_FORKABLE   memory whose faults are told to a userfaultfd.
 * MITOSIS_ERR_BUSY           another thread has been preparing for 10 s.
 * MITOSIS_ERR_NO_DISPATCH    the kernel offers no syscall user dispatch (Linux 5.11; sandboxes filter it).
 * MITOSIS_ERR_SEED_VISIBLE   a library's fork handler kept the seed from being hidden.
 * MITOSIS_ERR_SHARED_MEMORY  there is more shared memory than shared_copy_limit, or it cannot be copied.
 * MITOSIS_ERR_NO_MEMORY      no memory for the seed's description.
 * MITOSIS_ERR_FORK           fork(2) failed.
 * MITOSIS_ERR_FORK_HANDLERS  libc has no memory to register fork handlers.
 * MITOSIS_ERR_THREADS        a thread could not be stopped within 1 s; the message names it and its system call.
 * MITOSIS_ERR_HOOK           a function of mitosis_before_prepare() or mitosis_after_prepare() failed.
 * MITOSIS_ERR_MISSING        with MITOSIS_PREPARE_ALL_THREADS: /proc/self/smaps cannot be read.
 * MITOSIS_ERR_LIMIT          with MITOSIS_PREPARE_ALL_THREADS: there are more than 65530 mappings.
 */
int mitosis_prepare(const struct mitosis_prepare_options *options,
                    struct mitosis_seed **seed);

/**
 * Waits until the agent has published the seed, and tells its handle.
 *
 * The handle gives the right to fork this process: hand it on as you would a password. Several threads
 * may ask at once.
 *
 * seed:   from mitosis_prepare(), in the process that called it.
 * handle: receives text that belongs to the seed and is valid until mitosis_seed_free().
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           seed or handle is NULL.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that called mitosis_prepare().
 * MITOSIS_ERR_NOT_FORKABLE   the process cannot be a seed; the message names what stands in the way.
 * MITOSIS_ERR_SEED_GONE      the seed has been dropped, or has ended.
 * MITOSIS_ERR_LIMIT          a limit is reached.
 * MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION,
 * MITOSIS_ERR_PROTOCOL       the agent could not be asked.
 */
int mitosis_seed_handle(const struct mitosis_seed *seed,
                        const char **handle);

/**
 * Tells how long the other threads of this process stood still for the seed.
 *
 * seed:       from mitosis_prepare() with MITOSIS_PREPARE_ALL_THREADS, in the process that called it.
 * whole_ns:   receives nanoseconds from the first thread that was asked until all were let go; or NULL.
 * parking_ns: receives how many of these passed until the last thread stood; or NULL.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           seed is NULL.
 * MITOSIS_ERR_ARGUMENT       no thread stood still: the seed is of the caller's alone.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that called mitosis_prepare().
 * MITOSIS_ERR_SEED_GONE      the seed has been dropped.
 */
int mitosis_seed_pause(const struct mitosis_seed *seed,
                       uint64_t *whole_ns,
                       uint64_t *parking_ns);

/**
 * Ends the seed. Once it has returned MITOSIS_OK or MITOSIS_ERR_SEED_GONE, only mitosis_seed_free() is of use;
 * after any other code the seed is as before. No other thread may use the seed at the same time.
 *
 * seed: from mitosis_prepare(), in the process that called it.
 * how:  MITOSIS_DROP_AFTER_CHILDREN or MITOSIS_DROP_REVOKE.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           seed is NULL.
 * MITOSIS_ERR_ARGUMENT       how is neither.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that called mitosis_prepare().
 * MITOSIS_ERR_SEED_GONE      it has been dropped before, or has ended.
 * MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED
 *                            the agent is gone; the next one may have the seed: drop it again.
 * MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION, MITOSIS_ERR_PROTOCOL
 *                            the agent could not be asked: the seed may live on; drop it again.
 */
int mitosis_seed_drop(struct mitosis_seed *seed,
                      int how);

/**
 * Frees the object. The seed itself lives on unless it was dropped. Allowed in a fork of the process
 * that made it, too.
 *
 * seed: NULL does nothing. A pointer that has been freed must not be freed again, as with free(3).
 */
void mitosis_seed_free(struct mitosis_seed *seed);

/**
 * Starts children of a seed. All of them are started, or none.
 *
 * handle:   of the seed, from mitosis_seed_handle().
 * options:  NULL for the defaults.
 * count:    how many children, 1 to 10,000.
 * children: an array with room for count pointers, which receives the children in the order of their
 *           mitosis_child_index(), or NULLs on failure. Free each with mitosis_child_free().
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           handle or children is NULL, or payload is with a payload_size.
 * MITOSIS_ERR_HANDLE         handle is no handle.
 * MITOSIS_ERR_ARGUMENT       count, the size of payload and environment, a name in the environment, a
 *                            descriptor that is not open, text that is not UTF-8, a place to listen that the
 *                            seed has not or that is taken; options: size, flags,
 *                            or a field that this version does not know.
 * MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION
 *                            the agent of this host could not be asked.
 * MITOSIS_ERR_SEED_GONE      the seed was dropped, has ended, or was never there.
 * MITOSIS_ERR_KEY_REFUSED    the key of the handle is wrong, or this user may not resume so.
 * MITOSIS_ERR_HOST_UNFIT     the host cannot run the seed.
 * MITOSIS_ERR_UNREACHABLE    the seed's host, or the one that shall run the children, does not answer.
 * MITOSIS_ERR_SECRET         the hosts have no cluster secret in common.
 * MITOSIS_ERR_PROTOCOL       versions do not understand each other.
 * MITOSIS_ERR_LIMIT          a limit is reached.
 * MITOSIS_ERR_MISSING        the host lacks /dev/fuse, a capability or a kernel feature.
 */
int mitosis_resume(const char *handle,
                   const struct mitosis_resume_options *options,
                   uint32_t count,
                   struct mitosis_child **children);

/**
 * Asks for children of a seed and does not wait for them. It tells the agent of this host, which takes some microseconds
 * unless that agent has been stopped.
 *
 * Poll mitosis_resume_fd(), then call mitosis_resume_finish(), then mitosis_resume_free().
 *
 * handle:   of the seed, from mitosis_seed_handle().
 * options:  NULL for the defaults.
 * count:    how many children, 1 to 10,000.
 * resuming: receives the resume, or NULL on failure.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           handle or resuming is NULL, or payload is with a payload_size.
 * MITOSIS_ERR_HANDLE         handle is no handle.
 * MITOSIS_ERR_ARGUMENT       as of mitosis_resume(), but for places to listen.
 * MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_CONNECTION
 *                            the agent of this host could not be asked.
 */
int mitosis_resume_start(const char *handle,
                         const struct mitosis_resume_options *options,
                         uint32_t count,
                         struct mitosis_resuming **resuming);

/**
 * A descriptor for poll(2) and its like, which becomes readable (POLLIN) when mitosis_resume_finish() need not wait.
 *
 * resuming: from mitosis_resume_start(), in the process that called it, not finished yet.
 *
 * RETURN VALUE: a descriptor that belongs to the resume (do not read or close it) until mitosis_resume_finish() has
 * answered for it or mitosis_resume_free(), or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           resuming is NULL.
 * MITOSIS_ERR_ARGUMENT       it is finished.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started it.
 */
int mitosis_resume_fd(const struct mitosis_resuming *resuming);

/**
 * Takes the children of a resume, or the reason why there are none. All of them are started, or none.
 *
 * resuming:   from mitosis_resume_start(), in the process that called it, not finished yet.
 * timeout_ms: how long to wait at most for an answer; 0: not at all; negative: as long as the agent may take.
 * children:   an array with room for as many pointers as children were asked for, which receives them in the order of
 *             their mitosis_child_index(), or NULLs on failure. Free each with mitosis_child_free().
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code. But for MITOSIS_ERR_TIMEOUT, MITOSIS_ERR_NULL and
 * MITOSIS_ERR_OTHER_PROCESS the resume is finished then, and good for mitosis_resume_free() alone.
 *
 * ERRORS:
 * MITOSIS_ERR_TIMEOUT        there is no answer yet.
 * MITOSIS_ERR_NULL           resuming or children is NULL.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started it.
 * MITOSIS_ERR_ARGUMENT       it was finished before; a place to listen that the seed has not or that is taken.
 * MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION
 *                            the agent of this host has not answered.
 * MITOSIS_ERR_SEED_GONE, MITOSIS_ERR_KEY_REFUSED, MITOSIS_ERR_HOST_UNFIT, MITOSIS_ERR_UNREACHABLE, MITOSIS_ERR_SECRET,
 * MITOSIS_ERR_PROTOCOL, MITOSIS_ERR_LIMIT, MITOSIS_ERR_MISSING
 *                            as of mitosis_resume().
 */
int mitosis_resume_finish(struct mitosis_resuming *resuming,
                          int64_t timeout_ms,
                          struct mitosis_child **children);

/**
 * Frees the object. If it is not finished the resume is given up: children that this host has not started then are
 * not started any more, and those that are go on; another host may start them still. Allowed in a fork of the process that made it, too.
 *
 * resuming: NULL does nothing. A pointer that has been freed must not be freed again, as with free(3).
 */
void mitosis_resume_free(struct mitosis_resuming *resuming);

/**
 * Waits for a child's end. It may be asked again, and answers the same.
 *
 * child:      from mitosis_fork() or mitosis_resume(), in the process that called it.
 * timeout_ms: how long to wait at most; negative: as long as it takes; 0: not at all.
 * status:     its size must be set; receives how the child ended. Unchanged on failure.
 *
 * RETURN VALUE: MITOSIS_OK when the child has ended, else a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           child or status is NULL.
 * MITOSIS_ERR_ARGUMENT       status->size is not that of a mitosis_child_status.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started the child.
 * MITOSIS_ERR_TIMEOUT        it has not ended in that time.
 */
int mitosis_child_wait(const struct mitosis_child *child,
                       int64_t timeout_ms,
                       struct mitosis_child_status *status);

/**
 * Sends a child a signal, wherever it runs.
 *
 * child:  from mitosis_fork() or mitosis_resume(), in the process that called it.
 * signal: number as of signal(7), 1 to 64.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           child is NULL.
 * MITOSIS_ERR_ARGUMENT       there is no such signal.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started the child.
 * MITOSIS_ERR_CHILD_GONE     it has ended.
 * MITOSIS_ERR_KEY_REFUSED    it runs on another host, to which this user may not send signals.
 * MITOSIS_ERR_SECRET         the hosts have no cluster secret in common.
 * MITOSIS_ERR_UNREACHABLE    its host does not answer.
 * MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION,
 * MITOSIS_ERR_PROTOCOL       the agent of this host could not be asked.
 */
int mitosis_child_kill(const struct mitosis_child *child,
                       int signal);

/**
 * The process id of a child on its host.
 *
 * child: from mitosis_fork() or mitosis_resume().
 *
 * RETURN VALUE: positive, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL      child is NULL.
 * MITOSIS_ERR_PROTOCOL  the agent told none.
 */
int mitosis_child_pid(const struct mitosis_child *child);

/**
 * The name of the host that runs a child.
 *
 * child: from mitosis_fork() or mitosis_resume().
 *
 * RETURN VALUE: text that belongs to the child and is valid until mitosis_child_free(); NULL if child is
 * NULL.
 */
const char *mitosis_child_host(const struct mitosis_child *child);

/**
 * A descriptor for poll(2) and its like, which becomes readable (POLLIN) when a child has ended.
 *
 * With several children of one resume it may be readable for a moment because another one has ended:
 * ask mitosis_child_wait() with a timeout of 0.
 *
 * child: from mitosis_fork() or mitosis_resume(), in the process that called it.
 *
 * RETURN VALUE: a descriptor that belongs to the child (do not read or close it) until
 * mitosis_child_free(), or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL           child is NULL.
 * MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started the child.
 */
int mitosis_child_fd(const struct mitosis_child *child);

/**
 * Frees the object. The child itself goes on. Allowed in a fork of the process that made it, too.
 *
 * child: NULL does nothing. A pointer that has been freed must not be freed again, as with free(3).
 */
void mitosis_child_free(struct mitosis_child *child);

/**
 * The payload that mitosis_resume() gave this child.
 *
 * payload: receives a pointer to the bytes, valid for the life of the process; NULL if there are none.
 * size:    receives their number.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code. In a process that is no child there are no bytes.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL  payload or size is NULL.
 */
int mitosis_payload(const void **payload,
                    size_t *size);

/**
 * How many forks of mitosis lie between this process and the first one.
 *
 * RETURN VALUE: 0 in a process that is no child, 1 in a child, 2 in a child's child.
 */
uint64_t mitosis_generation(void);

/**
 * What CLOCK_MONOTONIC has jumped by in this child, ns. Moments of that clock that were noted before are to be moved by it.
 *
 * RETURN VALUE: 0 where this process has its parent's clock, as ever where its host has time namespaces for it; 0 in a
 * process that is no child.
 */
int64_t mitosis_clock_delta_ns(void);

/**
 * Which of the children of one mitosis_resume() this process is.
 *
 * RETURN VALUE: from 0 on; 0 in the child of mitosis_fork(). A negative code in a process that is no child.
 *
 * ERRORS:
 * MITOSIS_ERR_ARGUMENT  this process is no child.
 */
int mitosis_child_index(void);

/**
 * What the process had open and this child has not, number by number: to make it again, and to know what will
 * fail. Where files are carried; without, all numbers above 2 are lost and none is told.
 *
 * index: from 0 on.
 * loss:  its size must be set; receives the loss of this index. Unchanged on failure.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL      loss is NULL.
 * MITOSIS_ERR_ARGUMENT  there are no more, or loss->size is not that of a mitosis_loss.
 */
int mitosis_lost(size_t index,
                 struct mitosis_loss *loss);

/**
 * Registers a function to run before each mitosis_prepare() and mitosis_fork(), on the thread that calls
 * them, the one that was registered last first. If it fails, nothing is prepared. It is the place to close
 * what must not be copied.
 *
 * hook:       what to run. It may call any function of this library but those that register hooks.
 * data:       for it; valid, as hook is, for the life of the process and of all children.
 * timeout_ms: how long it may take; 0: 60 s. C code cannot be ended from outside: when the time is over
 *             this is said on standard error, and when it returns at last, nothing is prepared.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL   hook is NULL.
 * MITOSIS_ERR_LIMIT  1024 are registered.
 */
int mitosis_before_prepare(mitosis_hook hook,
                           void *data,
                           unsigned int timeout_ms);

/**
 * Registers a function to run after each mitosis_prepare() and mitosis_fork() in the process that called,
 * also where they fail, in the order of registration; all of them, also when one fails. The first failure
 * ends the seed, and the call with MITOSIS_ERR_HOOK.
 *
 * hook, data, timeout_ms: as for mitosis_before_prepare().
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL   hook is NULL.
 * MITOSIS_ERR_LIMIT  1024 are registered.
 */
int mitosis_after_prepare(mitosis_hook hook,
                          void *data,
                          unsigned int timeout_ms);

/**
 * Registers a function to run in each child before mitosis_prepare() or mitosis_fork() returns there, in
 * the order of registration. It may ask mitosis_payload(), mitosis_generation() and mitosis_child_index(). If
 * it fails, the child says so on standard error and ends with status 70: no half child goes on. So does a
 * child whose hook has not returned in time, wherever it hangs. It is the place to connect again, and to
 * give new state to random generators of your own.
 *
 * With MITOSIS_PREPARE_ALL_THREADS the other threads run again by then.
 *
 * hook, data, timeout_ms: as for mitosis_before_prepare(), but for what the end of the time brings.
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL   hook is NULL.
 * MITOSIS_ERR_LIMIT  1024 are registered.
 */
int mitosis_after_resume(mitosis_hook hook,
                         void *data,
                         unsigned int timeout_ms);

/**
 * Registers a function to run in the rehearsal: a child on this host that is thrown away before any other one is
 * started, and whose memory, as far as it has touched it, children are given ahead. A server that serves itself a call
 * there answers a child's first one sooner. Functions of mitosis_after_resume() do not run in it, standard
 * output and error are /dev/null, standard input is Mitosis's own, and other threads stand still.
 *
 * hook: what to run, in the order of registration; the first that fails is the last. All of them have some
 *       2 s. It must change nothing outside of its process.
 * data: as for mitosis_before_prepare().
 *
 * RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
 *
 * ERRORS:
 * MITOSIS_ERR_NULL   hook is NULL.
 * MITOSIS_ERR_LIMIT  1024 are registered.
 */
int mitosis_rehearse(mitosis_hook hook,
                     void *data);

/**
 * The message of this thread's last failure.
 *
 * RETURN VALUE: UTF-8 text without a newline at its end: what failed, on what, and what to do. "" if no
 * function has failed on this thread. Never NULL. Valid until the next function fails on this thread, or
 * the thread ends. It is not cleared by success: look at it after a failure only.
 */
const char *mitosis_last_error_message(void);

/**
 * The short text of an error number.
 *
 * code: what a function has returned.
 *
 * RETURN VALUE: static text, never NULL; "unknown error" for a number that this version does not know.
 */
const char *mitosis_strerror(int code);

/**
 * The version of the library.
 *
 * RETURN VALUE: static text "MAJOR.MINOR.PATCH", never NULL.
 */
const char *mitosis_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MITOSIS_H */
