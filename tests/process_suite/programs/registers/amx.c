/* The permission to use AMX, and a tile. */
#include "suite.h"

#include <asm/prctl.h>
#include <signal.h>

#ifndef ARCH_REQ_XCOMP_PERM
#define ARCH_GET_XCOMP_PERM 0x1022
#define ARCH_REQ_XCOMP_PERM 0x1023
#endif
enum { TILE_DATA = 18 };

static struct {
    unsigned char palette, start, reserved[14];
    unsigned short columns[16];
    unsigned char rows[16];
} __attribute__((aligned(64))) config = {.palette = 1, .columns = {64}, .rows = {16}};

static void handler(int signal)
{
    (void)signal;
    prepare_here();
}

int main(void)
{
    static unsigned char in[1024], out[1024];
    unsigned long allowed = 0;
    long number = SYS_tgkill;
    about("AMX: permission and tiles");
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) != 0)
        return absent("AMX");
    for (int at = 0; at < 1024; at++)
        in[at] = (unsigned char)(at * 7);
    signal(SIGUSR1, handler);
    asm volatile("ldtilecfg %[config]; tileloadd (%[in],%[stride],1), %%tmm0; syscall;"
                 "tilestored %%tmm0, (%[out],%[stride],1); tilerelease"
                 : "+a"(number)
                 : "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1),
                   [config] "m"(config), [in] "r"(in), [out] "r"(out), [stride] "r"(64L)
                 : "rcx", "r11", "memory");
    check(suite.crossed && memcmp(in, out, sizeof in) == 0);
    check(syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &allowed) == 0 && allowed >> TILE_DATA & 1);
    return carried();
}
