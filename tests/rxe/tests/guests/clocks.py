"""The clocks of libc are the kernel's, here and in a child under another kernel: clocks.py HOST."""

import ctypes
import os
import sys
import time

import mitosis

CLOCKS = (
    time.CLOCK_REALTIME,
    time.CLOCK_MONOTONIC,
    time.CLOCK_BOOTTIME,
    time.CLOCK_MONOTONIC_RAW,
    time.CLOCK_TAI,
    6,  # CLOCK_MONOTONIC_COARSE
)
SYS_clock_gettime = 228
AT_SYSINFO_EHDR = 33
libc = ctypes.CDLL(None)
libc.getauxval.restype = ctypes.c_ulong


def kernels(clock: int) -> int:
    """A clock, by the system call."""
    spec = (ctypes.c_long * 2)()
    assert libc.syscall(SYS_clock_gettime, clock, spec) == 0
    return spec[0] * 1_000_000_000 + spec[1]


def agreeing() -> int:
    """How many clocks stand between two looks of the kernel's; twice, for they go on."""
    agree = 0
    for clock in CLOCKS:
        readings = [kernels(clock), time.clock_gettime_ns(clock), kernels(clock), time.clock_gettime_ns(clock)]
        agree += readings == sorted(readings) and readings[0] > 0
    assert abs(time.time() - kernels(time.CLOCK_REALTIME) / 1e9) < 60
    return agree


def place() -> str:
    """Whether libc's vDSO is what this kernel has mapped."""
    with open("/proc/self/maps") as maps:
        start = next(line for line in maps if line.endswith("[vdso]\n")).split("-")[0]
    assert ctypes.string_at(libc.getauxval(AT_SYSINFO_EHDR), 4) == b"\x7fELF"
    return "in [vdso]" if int(start, 16) == libc.getauxval(AT_SYSINFO_EHDR) else "led to [vdso]"


if (child := mitosis.fork(sys.argv[1])) is None:
    print(f"child on {os.uname().release}: {agreeing()} clocks, {place()}", flush=True)
    sys.exit(42)
status = child.wait()
print(f"parent on {os.uname().release}: {agreeing()} clocks, {place()}")
sys.exit(0 if status == 42 else 1)
