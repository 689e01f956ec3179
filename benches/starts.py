"""What whole-process mode costs: how soon the threads of a process stop, and what the preload adds to a start."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from measurement import Bar, Measurement
from world import World, built, world

NAMES = ("stop_10_threads", "preload_start")
LIMIT_S = 120
_THREADS = 10
# Another host of threads, without a bar: what one costs.
_MANY = 200
# Starts of /bin/true in one sample: one alone is at the mercy of the scheduler.
_STARTS = 20


def measure(rounds: int) -> list[Measurement]:
    """Both."""
    with world(pinned=False) as hosts:
        return [_stop(hosts, rounds), _preload(rounds)]


def _stop(hosts: World, rounds: int) -> Measurement:
    measured = Measurement(
        "stop_10_threads",
        "ms",
        Bar("<=", value=0.5),
        f"{_THREADS} threads asleep in futexes and a pipe; from the first question until the last has stopped, as "
        "prepare tells; one process, a seed each round; not pinned",
        beside={
            "ms until all go on": [],
            "ms of clone(2)": [],
            f"ms for {_MANY} threads": [],
        },
    )
    for pause in _pauses(hosts, _THREADS, rounds):
        measured.samples.append(pause["parking"] / 1e6)
        measured.beside["ms until all go on"].append(pause["whole"] / 1e6)
        measured.beside["ms of clone(2)"].append(pause["clone"] / 1e6)
    for pause in _pauses(hosts, _MANY, rounds):
        measured.beside[f"ms for {_MANY} threads"].append(pause["parking"] / 1e6)
    return measured


def _pauses(hosts: World, threads: int, rounds: int) -> list[dict[str, int]]:
    command = hosts.a.command(built("suite-pause"), threads, rounds, agent=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    pauses = [json.loads(line) for line in done.stdout.splitlines()]
    # One could have been of fewer, if a thread had ended; none may be.
    if len(pauses) != rounds or {pause["threads"] for pause in pauses} != {threads}:
        raise RuntimeError(f"{len(pauses)} rounds of {[pause['threads'] for pause in pauses]} threads")
    return pauses


def _preload(rounds: int) -> Measurement:
    library = built("libmitosis_preload.so")
    measured = Measurement(
        "preload_start",
        "ms",
        Bar("<=", value=1.0),
        f"what LD_PRELOAD={library.name} adds to a start of /bin/true that is never prepared: the mean of "
        f"{_STARTS} starts with it less that of {_STARTS} without, by turns",
        beside={"ms of a start without": [], "ms of a start with": []},
    )
    _starts(library)
    for turn in range(rounds):
        sides = (None, library) if turn % 2 == 0 else (library, None)
        took = {side: _starts(side) for side in sides}
        measured.samples.append(took[library] - took[None])
        measured.beside["ms of a start without"].append(took[None])
        measured.beside["ms of a start with"].append(took[library])
    return measured


def _starts(library: Path | None) -> float:
    """ms of one start, on average."""
    environment = dict(os.environ)
    if library is not None:
        environment["LD_PRELOAD"] = str(library)
    begun = time.perf_counter_ns()
    for _ in range(_STARTS):
        pid = os.posix_spawn("/bin/true", ["true"], environment)
        if os.waitpid(pid, 0)[1] != 0:
            raise RuntimeError(f"/bin/true does not start with {library}")
    return (time.perf_counter_ns() - begun) / _STARTS / 1e6
