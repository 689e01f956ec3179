/* Touches of far-apart pages, each timed: the same code in a child of Mitosis and in front of the bare
 * loop. As a library it also holds the memory that a seed gives its children to touch. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "touch.h"

static volatile char *memory;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Median ns of one touch of TOUCHES pages from `start` on, or -1. */
long touch_at(volatile char *start) {
    static int64_t took[TOUCHES];
    /* One page a miss: what lies around it is not wanted. */
    if (madvise((void *)start, TOUCH_BYTES, MADV_RANDOM) != 0)
        return -1;
    for (int i = 0; i < TOUCHES; i++)
        took[i] = i; /* its own pages are not to be missed below */
    (void)start[0];
    now_ns();
    for (int i = 0; i < TOUCHES; i++) {
        volatile char *page = start + (size_t)(i + 1) * STRIDE_PAGES * PAGE;
        int64_t begun = now_ns();
        (void)*page;
        took[i] = now_ns() - begun;
    }
    qsort(took, TOUCHES, sizeof took[0], by_size);
    return took[TOUCHES / 2];
}

/* In the seed: memory for `samples` runs, each page of it written. */
int touch_prepare(long samples) {
    size_t bytes = (size_t)samples * TOUCH_BYTES;
    char *got = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED)
        return -1;
    for (size_t at = 0; at < bytes; at += 8)
        *(uint64_t *)(got + at) = at * 0x9E3779B97F4A7C15u + 1;
    memory = got;
    return 0;
}

/* In a child: run number `sample`. */
long touch(long sample) {
    return touch_at(memory + (size_t)sample * TOUCH_BYTES);
}
