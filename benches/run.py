"""`make bench`: every figure of the README against its bar; writes target/bench.json.

    python benches/run.py [--only NAME]...

Both sides of a figure are measured by turns in one run. Readers take medians; so does the table. Ends
with 1 if something could not be measured; a bar that is missed is told, and is no failure of this.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

import children
import machine
import memory
import pages
import pauses
from measurement import Measurement, write
from world import TARGET

Bench = Callable[[], list[Measurement]]

# Names of figures, and what measures them together.
BENCHES: list[tuple[tuple[str, ...], Bench]] = [
    (("prepare_pause_30mb",), lambda: pauses.prepare_pause("30mb", 1)),
    (("prepare_pause_200mb",), lambda: pauses.prepare_pause("200mb", 200)),
    (("prepare_pause_1gb",), lambda: pauses.prepare_pause("1gb", 1024)),
    (("parent_after_prepare",), pauses.parent_after_prepare),
    (
        (
            "first_child_pinned_ms",
            "first_child_ms",
            "first_child_misses",
            "first_child_pages_moved",
            "descriptor_bytes_200mb",
        ),
        children.first_child,
    ),
    (("next_child_ms",), children.next_child),
    (("children_alive_100",), children.children_alive),
    (("tcp_read_200mb",), pages.tcp_read),
    (("miss_4k_local",), pages.miss),
    (("host_memory_100_children",), memory.host_memory),
]
# Each takes below one minute on two shared cores; what hangs must not hold the others up.
BENCH_LIMIT_S = 150


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {BENCH_LIMIT_S} s")


def chosen(only: list[str]) -> list[tuple[tuple[str, ...], Bench]]:
    """The benches that measure what is asked for."""
    known = [name for names, _ in BENCHES for name in names]
    if unknown := sorted(set(only) - set(known)):
        sys.exit(f"bench: no {', '.join(unknown)}; there are: {', '.join(known)}")
    return [(names, bench) for names, bench in BENCHES if not only or set(names) & set(only)]


def run(bench: Bench) -> list[Measurement]:
    """One bench, in bounded time."""
    signal.alarm(BENCH_LIMIT_S)
    try:
        measured = bench()
    finally:
        signal.alarm(0)
    for measurement in measured:
        measurement.check()
    return measured


def main() -> int:
    """All of them, or some."""
    arguments = argparse.ArgumentParser(description="Measures Mitosis against its bars.")
    arguments.add_argument("--only", action="append", default=[], metavar="NAME")
    only = arguments.parse_args().only
    benches = chosen(only)
    if os.geteuid() != 0:
        sys.exit("bench: hosts, FUSE and cgroups need root")
    signal.signal(signal.SIGALRM, _out_of_time)
    print(machine.line(), machine.pins(), machine.pretouch(), "", sep="\n", flush=True)
    done: list[Measurement] = []
    failed = []
    for names, bench in benches:
        begun = time.monotonic()
        try:
            measured = [m for m in run(bench) if not only or m.name in only]
        except Exception:
            traceback.print_exc()
            failed.append(", ".join(names))
            continue
        for measurement in measured:
            print(*measurement.lines(), sep="\n")
        print(f"  (load {os.getloadavg()[0]:.1f}, {time.monotonic() - begun:.0f} s)", flush=True)
        done += measured
    path = TARGET / "bench.json"
    write(done, path)
    missed = [measurement.name for measurement in done if not measurement.holds()]
    print(f"\n{len(done) - len(missed)} of {len(done)} bars reached; {path}")
    if missed:
        print(f"missed: {', '.join(missed)}")
    if failed:
        print(f"FAILED, not measured: {'; '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
