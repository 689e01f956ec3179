"""What host A runs in the demo: a warm CPython that measures itself and forks onto host B.

It and its children tell by lines of JSON on standard output; run.py reads them.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

STARTED = "DEMO_STARTED_NS"
ARRAY_BYTES = 200_000_000
PAGE_BYTES = 4096
PAUSES = 9
# Seeds whose first child on B is timed, and further children of the last of them.
FIRSTS, FURTHER = 5, 25
# How long the first child stands at its first bytecode, for run.py to read B's counters.
STAND_S = 1.0
HOST_B = "host-b"
# Ready made: the first child moves as little as it can before the counters are read.
STANDING = b'{"standing": true}\n'


def say(word: str, value: Any) -> None:
    """One line, written at once: others write to the same pipe."""
    os.write(1, json.dumps({word: value}).encode() + b"\n")


def main() -> None:
    """From a cold start to the last child."""
    if STARTED not in os.environ:
        # The clock starts before the interpreter does.
        os.environ[STARTED] = str(time.time_ns())
        os.execv(sys.executable, [sys.executable, *sys.argv])
    import numpy

    array = numpy.random.default_rng(7).integers(0, 2**63, ARRAY_BYTES // 8, dtype=numpy.uint64)
    cold_start_ms = (time.time_ns() - int(os.environ[STARTED])) / 1e6

    import mitosis

    nonce = int.from_bytes(os.urandom(8), "little") >> 1
    place = random.SystemRandom().randrange(len(array))
    array[place] = nonce

    fork_ms, prepare_ms = pauses(mitosis)
    parent: dict[str, Any] = {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "pid_namespace": os.readlink("/proc/self/ns/pid"),
        "cold_start_ms": cold_start_ms,
        "fork_ms": fork_ms,
        "prepare_ms": prepare_ms,
        "array_bytes": array.nbytes,
        "nonce": nonce,
        "sum": int(array.sum(dtype=numpy.uint64)),
    }

    child = mitosis.fork(HOST_B)
    if child is None:
        woke_ns = time.time_ns()
        monotonic_s = time.monotonic()
        os.write(1, STANDING)
        time.sleep(STAND_S)
        say("woke", {"child": "first", "ns": woke_ns})
        say("child", seen_by_child(array, place) | {"monotonic_s": monotonic_s})
        os._exit(0)
    parent["monotonic_s"] = time.monotonic()
    parent["descriptor_bytes"] = child.report.descriptor_bytes
    parent["pages_total"] = child.report.pages_total
    say("requested", {"child": "first", "ns": child.report.requested_at_ns})
    say("parent", parent)
    if (status := child.wait()) != 0:
        sys.exit(f"the child on {HOST_B} ended with {status}")
    children(mitosis)


def pauses(mitosis: Any) -> tuple[list[float], list[float]]:
    """ms for which this process stands still in os.fork() and in prepare(), by turns."""
    fork_ms, prepare_ms = [], []
    for _ in range(PAUSES):
        start = time.perf_counter_ns()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        fork_ms.append((time.perf_counter_ns() - start) / 1e6)
        os.waitpid(pid, 0)

        start = time.perf_counter_ns()
        seed = mitosis.prepare()
        prepare_ms.append((time.perf_counter_ns() - start) / 1e6)
        # Published, so that the agent's work on this one does not fall into the next pause.
        _ = seed.handle
        seed.drop()
    return fork_ms, prepare_ms


def seen_by_child(array: Any, place: int) -> dict[str, Any]:
    """What the child finds on B; reads every page of the array, in a random order."""
    import numpy

    start = time.perf_counter()
    words = PAGE_BYTES // array.itemsize
    whole = len(array) // words * words
    pages = array[:whole].reshape(-1, words)
    total = int(array[whole:].sum(dtype=numpy.uint64))
    for some in numpy.array_split(numpy.random.permutation(len(pages)), 256):
        total += int(pages[some].sum(dtype=numpy.uint64))
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "pid_namespace": os.readlink("/proc/self/ns/pid"),
        "nonce": int(array[place]),
        "sum": total % 2**64,
        "sum_ms": (time.perf_counter() - start) * 1e3,
    }


def children(mitosis: Any) -> None:
    """First children of some seeds, and further ones of the last."""
    first, further = ["first"], []
    for seed_number in range(FIRSTS):
        with mitosis.prepare() as seed:
            if isinstance(seed, mitosis.Resumed):
                woke_ns = time.time_ns()
                say("woke", {"child": seed.child, "ns": woke_ns})
                os._exit(0)
            first.append(one(mitosis, seed.handle))
            if seed_number == FIRSTS - 1:
                further = [one(mitosis, seed.handle) for _ in range(FURTHER)]
    say("first", first)
    say("next", further)


def one(mitosis: Any, handle: Any) -> str:
    """Starts a child on B, waits for its end and returns its id."""
    child = mitosis.resume(handle, HOST_B)
    say("requested", {"child": child.id, "ns": child.report.requested_at_ns})
    if (status := child.wait()) != 0:
        sys.exit(f"child {child.id} on {HOST_B} ended with {status}")
    name: str = child.id
    return name


if __name__ == "__main__":
    main()
