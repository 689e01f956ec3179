/* An io_uring of four entries by its system calls alone. */
#ifndef URING_H
#define URING_H

#include "suite.h"

#include <linux/io_uring.h>
#include <sys/mman.h>

/* The kernel gives a page for the rings of four entries, and one for the entries. */
#define RINGS_BYTES 4096
#define ENTRIES_BYTES 4096

struct uring {
    int fd;
    char *rings;
    struct io_uring_sqe *entries;
    struct io_uring_params parameters;
};

/* False: none is to be had. */
static inline bool uring_open(struct uring *ring)
{
    int prot = PROT_READ | PROT_WRITE;
    memset(&ring->parameters, 0, sizeof ring->parameters);
    ring->fd = (int)syscall(SYS_io_uring_setup, 4, &ring->parameters);
    if (ring->fd < 0 || !(ring->parameters.features & IORING_FEAT_SINGLE_MMAP))
        return false;
    ring->rings = mmap(NULL, RINGS_BYTES, prot, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    ring->entries = mmap(NULL, ENTRIES_BYTES, prot, MAP_SHARED, ring->fd, IORING_OFF_SQES);
    return ring->rings != MAP_FAILED && ring->entries != MAP_FAILED;
}

static inline unsigned *uring_word(struct uring *ring, unsigned offset)
{
    return (unsigned *)(void *)(ring->rings + offset);
}

/* One operation that does nothing, and its answer, through the memory of the rings. */
static inline bool uring_works(struct uring *ring, unsigned long long token)
{
    struct io_sqring_offsets *submitted = &ring->parameters.sq_off;
    struct io_cqring_offsets *completed = &ring->parameters.cq_off;
    unsigned tail = *uring_word(ring, submitted->tail);
    unsigned at = tail & *uring_word(ring, submitted->ring_mask);
    unsigned head = *uring_word(ring, completed->head);
    struct io_uring_cqe *answers = (void *)(ring->rings + completed->cqes), *answer;
    memset(&ring->entries[at], 0, sizeof ring->entries[at]);
    ring->entries[at].opcode = IORING_OP_NOP;
    ring->entries[at].user_data = token;
    uring_word(ring, submitted->array)[at] = at;
    __atomic_store_n(uring_word(ring, submitted->tail), tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        return false;
    if (__atomic_load_n(uring_word(ring, completed->tail), __ATOMIC_ACQUIRE) != head + 1)
        return false;
    answer = &answers[head & *uring_word(ring, completed->ring_mask)];
    __atomic_store_n(uring_word(ring, completed->head), head + 1, __ATOMIC_RELEASE);
    return answer->user_data == token && answer->res == 0;
}

#endif
