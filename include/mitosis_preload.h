/*
 * Mitosis: what a program may call that runs with libmitosis_preload.so, and need not.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     if (mitosis_preload_loaded() && mitosis_preload_prepare() == 0)
 *         puts("in a child, whenever and wherever it is started");
 *
 * Nothing is linked: the functions are weak, and there when the library was preloaded ('mitosis run --
 * COMMAND', or LD_PRELOAD). Ask mitosis_preload_loaded() before each of the others. Compile as
 * position-independent code (the default of today's compilers), where a weak function may be missing.
 */

#ifndef MITOSIS_PRELOAD_H
#define MITOSIS_PRELOAD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Makes a seed of the whole process: all of its threads go on in children, each where it stood.
 *
 * Returns once in the caller, after some milliseconds in which all threads stood still, and once in every
 * child. The agent is that of $MITOSIS_AGENT, else $XDG_RUNTIME_DIR/mitosis/agent.sock if it is there, else
 * /run/mitosis/agent.sock.
 *
 * RETURN VALUE: 1 in the caller, 0 in a child; -1 on failure, in the caller alone:
 * mitosis_preload_error() tells why.
 */
int mitosis_preload_prepare(void) __attribute__((weak));

/*
 * Waits until the agent has published the last seed, and writes its handle with a zero byte behind it.
 *
 * RETURN VALUE: 0. -1: it was not published; -2: size is too small (256 are enough unless the agent's host
 * has a very long name); -3: mitosis_preload_prepare() has made no seed.
 */
int mitosis_preload_handle(char *handle, size_t size) __attribute__((weak));

/* Why the last call of these functions failed; valid until the next one fails. */
const char *mitosis_preload_error(void) __attribute__((weak));

/* Forks between this process and the first one; 0 in a process that no resume has made. */
uint64_t mitosis_preload_generation(void) __attribute__((weak));

/* Which of the children of one resume this is, from 0; -1 in a process that no resume has made since it
 * loaded the library. */
int mitosis_preload_child_index(void) __attribute__((weak));

/* What 'mitosis resume --payload' gave to this child, and its size; NULL where mitosis_preload_child_index()
 * is -1. Valid until this process is prepared by mitosis_preload_prepare() again. */
const unsigned char *mitosis_preload_payload(size_t *size) __attribute__((weak));

/*
 * Has function(context) called in each child of a seed that somebody else has made ('mitosis prepare PID', or
 * 'mitosis run --when'), before the program goes on; NULL: nobody is told. It is called on any thread, in a
 * signal handler: what it does must be async-signal-safe (write(2) to an eventfd, sem_post(3)).
 */
void mitosis_preload_on_resume(void (*function)(void *context), void *context) __attribute__((weak));

/* Whether the library is there. */
static inline int mitosis_preload_loaded(void)
{
    return mitosis_preload_prepare != 0;
}

#ifdef __cplusplus
}
#endif

#endif
