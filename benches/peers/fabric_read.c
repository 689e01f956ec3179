/* The peer of our tcp fabric: fi_read of libfabric's tcp;ofi_rxm, on loopback.
 *
 *   fabric_read serve BYTES            has memory that can be READ; says where, then turns its own progress
 *                                      by spinning, as libfabric's manual progress asks, until stdin ends
 *   fabric_read read NAME KEY ADDR BYTES
 *                                      for each line `SIZE COUNT` of stdin: COUNT READs of SIZE bytes, one
 *                                      at a time, waited for by spinning; prints {"us": [each]}
 *
 * Every byte that was read is compared, between the READs, outside of what is timed.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#define KEY 7
#define SIZE_MAX_READ (1ul << 20)
#define NAME_MAX_BYTES 256
/* Turns of progress between two looks at stdin. */
#define TURNS 4096

static struct fi_info *info;
static struct fid_domain *domain;
static struct fid_ep *endpoint;
static struct fid_av *addresses;
static struct fid_cq *completions;

static void check(long code, const char *what) {
    if (code == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, fi_strerror((int)-code));
    exit(1);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint64_t word(uint64_t index) { return (index + 1) * 0x9E3779B97F4A7C15u; }

static void *memory(size_t bytes) {
    void *got = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED)
        fail("mmap");
    return got;
}

static void open_endpoint(void) {
    struct fi_info *hints = fi_allocinfo();
    struct fid_fabric *fabric;
    struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_CONTEXT, .size = 64};
    struct fi_av_attr av = {.type = FI_AV_MAP};
    hints->caps = FI_RMA | FI_READ | FI_REMOTE_READ | FI_MSG;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    hints->fabric_attr->prov_name = strdup("tcp;ofi_rxm");
    check(fi_getinfo(FI_VERSION(1, 14), "127.0.0.1", NULL, FI_SOURCE, hints, &info), "fi_getinfo");
    check(fi_fabric(info->fabric_attr, &fabric, NULL), "fi_fabric");
    check(fi_domain(fabric, info, &domain, NULL), "fi_domain");
    check(fi_endpoint(domain, info, &endpoint, NULL), "fi_endpoint");
    check(fi_av_open(domain, &av, &addresses, NULL), "fi_av_open");
    check(fi_cq_open(domain, &cq, &completions, NULL), "fi_cq_open");
    check(fi_ep_bind(endpoint, &addresses->fid, 0), "bind av");
    check(fi_ep_bind(endpoint, &completions->fid, FI_TRANSMIT | FI_RECV), "bind cq");
    check(fi_enable(endpoint), "fi_enable");
}

/* Whether the address of a READ is the target's own, or counts from its registration's start. */
static int by_address(void) { return (info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0; }

static int serve(size_t bytes) {
    struct fid_mr *mr;
    struct pollfd ended = {.fd = 0, .events = POLLIN};
    uint64_t *words = memory(bytes);
    unsigned char name[NAME_MAX_BYTES];
    size_t len = sizeof name;
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = word(i);
    open_endpoint();
    check(fi_mr_reg(domain, words, bytes, FI_REMOTE_READ, 0, KEY, 0, &mr, NULL), "fi_mr_reg");
    check(fi_getname(&endpoint->fid, name, &len), "fi_getname");
    printf("{\"name\": \"");
    for (size_t i = 0; i < len; i++)
        printf("%02x", name[i]);
    printf("\", \"key\": %" PRIu64 ", \"addr\": %" PRIu64 "}\n", fi_mr_key(mr),
           by_address() ? (uint64_t)words : 0);
    fflush(stdout);
    do {
        struct fi_cq_entry entry;
        for (int i = 0; i < TURNS; i++)
            fi_cq_read(completions, &entry, 1);
    } while (poll(&ended, 1, 0) == 0);
    return 0;
}

struct target {
    fi_addr_t peer;
    uint64_t key, addr;
    size_t bytes;
};

static void complete(void) {
    struct fi_cq_entry entry;
    ssize_t got;
    while ((got = fi_cq_read(completions, &entry, 1)) == -FI_EAGAIN)
        ;
    if (got == -FI_EAVAIL) {
        struct fi_cq_err_entry error = {0};
        fi_cq_readerr(completions, &error, 0);
        fprintf(stderr, "fi_read: %s\n", fi_strerror(error.err));
        exit(1);
    }
    if (got != 1)
        check(got, "fi_cq_read");
}

static int64_t read_once(const struct target *from, uint64_t *into, void *desc, size_t at, size_t size) {
    int64_t begun = now_ns();
    ssize_t posted;
    /* A first READ meets a connection that is being made. */
    while ((posted = fi_read(endpoint, into, size, desc, from->peer, from->addr + at, from->key, NULL)) ==
           -FI_EAGAIN)
        fi_cq_read(completions, NULL, 0);
    check(posted, "fi_read");
    complete();
    int64_t took = now_ns() - begun;
    for (size_t i = 0; i < size / 8; i++)
        if (into[i] != word(at / 8 + i)) {
            fprintf(stderr, "byte %zu of %zu at %zu is wrong\n", i * 8, size, at);
            exit(1);
        }
    return took;
}

static int read_all(const struct target *from) {
    char line[64];
    struct fid_mr *mr;
    uint64_t *into = memory(SIZE_MAX_READ);
    memset(into, 1, SIZE_MAX_READ);
    check(fi_mr_reg(domain, into, SIZE_MAX_READ, FI_READ, 0, KEY + 1, 0, &mr, NULL), "fi_mr_reg");
    size_t at = 0;
    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t size, count;
        if (sscanf(line, "%zu %zu", &size, &count) != 2 || size % 8 || size > SIZE_MAX_READ)
            return 2;
        printf("{\"us\": [");
        for (size_t i = 0; i < count; i++) {
            at = at + 2 * size > from->bytes ? 0 : at + size;
            double us = read_once(from, into, fi_mr_desc(mr), at, size) / 1e3;
            printf("%s%.3f", i ? ", " : "", us);
        }
        puts("]}");
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(strtoul(argv[2], NULL, 10));
    if (argc != 6 || strcmp(argv[1], "read") != 0) {
        fprintf(stderr, "usage: fabric_read serve BYTES | fabric_read read NAME KEY ADDR BYTES\n");
        return 2;
    }
    unsigned char name[NAME_MAX_BYTES] = {0};
    struct target from = {.key = strtoul(argv[3], NULL, 10),
                          .addr = strtoul(argv[4], NULL, 10),
                          .bytes = strtoul(argv[5], NULL, 10)};
    for (size_t i = 0; i < sizeof name && argv[2][2 * i] != 0; i++)
        if (sscanf(argv[2] + 2 * i, "%2hhx", &name[i]) != 1)
            return 2;
    open_endpoint();
    if (fi_av_insert(addresses, name, 1, &from.peer, 0, NULL) != 1) {
        fprintf(stderr, "fi_av_insert: the name is no address\n");
        return 1;
    }
    return read_all(&from);
}
