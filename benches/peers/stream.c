/* The peer of an array that is read in a child: the same number of bytes through a socket.
 *
 *   stream send PORT BYTES            serves BYTES to each connection, until it is ended
 *   stream memfd|raw ADDR PORT BYTES  takes them once: writes them to a fresh memfd, maps and sums
 *                                     them (memfd), or drops them (raw); prints JSON
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE (256ul << 10)

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static char *memory(size_t bytes) {
    char *got = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED)
        fail("mmap");
    for (size_t at = 0; at < bytes; at += 8)
        *(uint64_t *)(got + at) = at / 8;
    return got;
}

static void prompt(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static _Noreturn void serve(int port, size_t bytes) {
    char *source = memory(bytes);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&at, sizeof at) != 0 || listen(listener, 8) != 0)
        fail("listen");
    signal(SIGPIPE, SIG_IGN);
    puts("{\"ready\": true}");
    fflush(stdout);
    for (;;) {
        char go;
        int to = accept(listener, NULL, NULL);
        if (to < 0)
            fail("accept");
        prompt(to);
        if (read(to, &go, 1) == 1)
            for (size_t sent = 0; sent < bytes;) {
                size_t left = bytes - sent;
                ssize_t more = send(to, source + sent, left < PIECE ? left : PIECE, 0);
                if (more <= 0)
                    break;
                sent += more;
            }
        close(to);
    }
}

static uint64_t sum(const uint64_t *words, size_t count) {
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += words[i];
    return total;
}

static int take(const char *address, int port, size_t bytes, int keep) {
    static char piece[PIECE];
    int from = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &at.sin_addr);
    if (connect(from, (void *)&at, sizeof at) != 0)
        fail("connect");
    prompt(from);
    memset(piece, 1, sizeof piece);
    usleep(30000); /* as the child rests before it begins */
    double begun = now_s();
    int file = memfd_create("array", MFD_CLOEXEC);
    if (file < 0 || write(from, "g", 1) != 1)
        fail("begin");
    for (size_t got = 0; got < bytes;) {
        size_t left = bytes - got, want = left < PIECE ? left : PIECE;
        ssize_t more = recv(from, piece, want, MSG_WAITALL);
        if (more <= 0)
            fail("recv");
        if (keep && write(file, piece, more) != more)
            fail("write");
        got += more;
    }
    uint64_t total = 0;
    if (keep) {
        const uint64_t *view = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, 0);
        if (view == MAP_FAILED)
            fail("mmap");
        total = sum(view, bytes / 8);
    }
    printf("{\"seconds\": %.9f, \"sum\": %lu}\n", now_s() - begun, total);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "send") == 0)
        serve(atoi(argv[2]), strtoul(argv[3], NULL, 10));
    if (argc == 5)
        return take(argv[2], atoi(argv[3]), strtoul(argv[4], NULL, 10), strcmp(argv[1], "memfd") == 0);
    fprintf(stderr, "usage: stream send PORT BYTES | stream memfd|raw ADDR PORT BYTES\n");
    return 2;
}
