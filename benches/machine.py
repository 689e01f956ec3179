"""The machine that measures: what it is, which CPUs are used for what, memory made ready, cgroups."""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

_ALLOWED = sorted(os.sched_getaffinity(0))
# Host A's: its agent, and whatever sends.
CPU_A = _ALLOWED[0]
# Host B's: agent, pager, keeper, children. Woken across CPUs, a virtual machine takes ten times longer.
CPU_B = _ALLOWED[-1]
# More than all processes of one measurement hold at once.
PRETOUCH_BYTES = 3 << 30
# What is left to others when memory is made ready.
_RESERVE_BYTES = 2 << 30
_CGROUP_PREFIX = "mitosis-bench-"
_CGROUP_END_LIMIT_S = 5.0


def line() -> str:
    """CPU, kernel, huge pages, load: what a reader of a figure has to know."""
    models = [
        row.partition(":")[2].strip()
        for row in Path("/proc/cpuinfo").read_text().splitlines()
        if row.startswith("model name")
    ]
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return (
        f"machine: {len(_ALLOWED)} x {models[0] if models else platform.machine()}, {memory} GiB, "
        f"Linux {platform.release()}, THP {huge.split('[')[1].split(']')[0]}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def pretouch() -> str:
    """Touches memory and gives it back: a host that backs a virtual machine lazily takes 13 us a page."""
    available = next(
        int(row.split()[1]) << 10
        for row in Path("/proc/meminfo").read_text().splitlines()
        if row.startswith("MemAvailable:")
    )
    size = max(0, min(PRETOUCH_BYTES, available - _RESERVE_BYTES)) & -mmap.PAGESIZE
    begun = time.monotonic()
    if size:
        with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            for page in range(0, size, mmap.PAGESIZE):
                memory[page] = 1
    took = time.monotonic() - begun
    return f"pre-touched {size / 2**30:.1f} GiB in {took:.1f} s and gave it back"


def pins() -> str:
    """Which CPU does what."""
    return (
        f"pinned: host A's agent and senders to CPU {CPU_A}; host B's agent, pager, keeper, children and "
        f"receivers to CPU {CPU_B}; measured callers of prepare() and os.fork() to CPU {CPU_B}"
    )


class MemoryGroup:
    """A memory cgroup, version 1 or 2, whichever is mounted."""

    def __init__(self, path: Path, usage: str) -> None:
        self._path = path
        self._usage = usage

    def enter(self) -> None:
        """Moves the calling process into it."""
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def bytes(self) -> int:
        """All memory that is charged to it now, page cache and kernel memory with it."""
        return int((self._path / self._usage).read_text())


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A new one, removed at the end."""
    parent, usage = _memory_controller()
    for stale in parent.glob(f"{_CGROUP_PREFIX}*"):
        if not Path("/proc", stale.name.removeprefix(_CGROUP_PREFIX)).exists():
            with contextlib.suppress(OSError):
                stale.rmdir()
    path = parent / f"{_CGROUP_PREFIX}{os.getpid()}"
    path.mkdir()
    try:
        yield MemoryGroup(path, usage)
    finally:
        _remove(path)


def _memory_controller() -> tuple[Path, str]:
    for row in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = row.partition(" - ")
        place, (kind, _, options) = Path(before.split()[4]), after.split()[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            return place, "memory.usage_in_bytes"
        controllers = place / "cgroup.controllers"
        if kind == "cgroup2" and "memory" in controllers.read_text().split():
            (place / "cgroup.subtree_control").write_text("+memory")
            return place, "memory.current"
    raise RuntimeError("no memory cgroup is mounted: mount one, or run where root may see it")


def _remove(path: Path) -> None:
    """Its processes have been told to end; the kernel takes a moment."""
    limit = time.monotonic() + _CGROUP_END_LIMIT_S
    while True:
        try:
            return path.rmdir()
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.02)
