"""`make bench`: every figure of the README against its bar; writes target/bench.json.

    python benches/run.py [--only NAME]... [--smoke]

Both sides of a figure are measured by turns in one run. Readers take medians; so does the table. Ends
with 1 if something could not be measured; a bar that is missed is told, and is no failure of this.
`--smoke` runs those that know rounds with two of them, and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType

import arena_fills
import children
import encrypted_reads
import fn_calls
import machine
import memory
import node
import pages
import pauses
import rc_forks
import rc_reads
import starts
import storms
import tcp_reads
import world
from measurement import ROUNDS, SAMPLES_MIN, SMOKE_ROUNDS, Measurement, write

Bench = Callable[[], list[Measurement]]
RoundsBench = Callable[[int], list[Measurement]]

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
# Those that can do with few rounds, and how long they may take: guests boot, and are emulated.
ROUNDS_BENCHES: list[tuple[tuple[str, ...], RoundsBench, int]] = [
    (tcp_reads.NAMES, tcp_reads.measure, 150),
    (encrypted_reads.NAMES, encrypted_reads.measure, 150),
    (storms.NAMES, storms.measure, 150),
    (arena_fills.NAMES, arena_fills.measure, arena_fills.LIMIT_S),
    (fn_calls.NAMES, fn_calls.measure, 150),
    (starts.NAMES, starts.measure, starts.LIMIT_S),
    (rc_reads.NAMES, rc_reads.measure, rc_reads.LIMIT_S),
    (rc_forks.NAMES, rc_forks.measure, rc_forks.LIMIT_S),
    (node.NAMES, node.measure, node.LIMIT_S),
]
# Each takes below one minute on two shared cores; what hangs must not hold the others up.
BENCH_LIMIT_S = 150
# Of the one that runs.
limit_s = BENCH_LIMIT_S


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {limit_s} s")


@dataclass(frozen=True)
class Chosen:
    """What is to be run."""

    names: tuple[str, ...]
    bench: Bench
    limit_s: int
    samples: int

    def run(self) -> list[Measurement]:
        """One bench, in bounded time."""
        global limit_s
        limit_s = self.limit_s
        signal.alarm(limit_s)
        try:
            measured = self.bench()
        finally:
            signal.alarm(0)
        for measurement in measured:
            measurement.check(self.samples)
        return measured


def chosen(only: list[str], smoke: bool) -> list[Chosen]:
    """The benches that measure what is asked for."""
    rounds = SMOKE_ROUNDS if smoke else ROUNDS
    all_of_them = [
        Chosen(names, partial(bench, rounds), seconds, rounds)
        for names, bench, seconds in ROUNDS_BENCHES
    ]
    if not smoke:
        whole = [Chosen(names, bench, BENCH_LIMIT_S, SAMPLES_MIN) for names, bench in BENCHES]
        all_of_them = whole + all_of_them
    known = [name for one in all_of_them for name in one.names]
    if unknown := sorted(set(only) - set(known)):
        sys.exit(f"bench: no {', '.join(unknown)}; there are: {', '.join(known)}")
    return [one for one in all_of_them if not only or set(one.names) & set(only)]


def main() -> int:
    """All of them, or some."""
    arguments = argparse.ArgumentParser(description="Measures Mitosis against its bars.")
    arguments.add_argument("--only", action="append", default=[], metavar="NAME")
    arguments.add_argument("--smoke", action="store_true", help="few rounds, nothing written")
    given = arguments.parse_args()
    only = given.only
    if given.smoke:
        world.profile = "debug"
    benches = chosen(only, given.smoke)
    if os.geteuid() != 0:
        sys.exit("bench: hosts, FUSE and cgroups need root")
    signal.signal(signal.SIGALRM, _out_of_time)
    print(machine.line(), machine.pins(), sep="\n", flush=True)
    if not given.smoke:
        print(machine.pretouch(), "", sep="\n", flush=True)
    done: list[Measurement] = []
    failed = []
    for one in benches:
        begun = time.monotonic()
        try:
            measured = [m for m in one.run() if not only or m.name in only]
        except Exception:
            traceback.print_exc()
            failed.append(", ".join(one.names))
            continue
        for measurement in measured:
            print(*measurement.lines(), sep="\n")
        print(f"  (load {os.getloadavg()[0]:.1f}, {time.monotonic() - begun:.0f} s)", flush=True)
        done += measured
    path = world.TARGET / "bench.json"
    if given.smoke:
        print(f"{len(done)} figures of a smoke run, which mean nothing")
        return 1 if failed else 0
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
