"""A warm CPython that does what the benches tell it to, and its children.

Commands are lines of JSON on standard input, [verb, argument...]; each is answered by a line
{"reply": ...}. Children write lines {"child": index, ...} to the same pipe.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

# The first bytecode that a child runs is that of the first handler, and this is the first.
first_bytecode_ns = 0
realtime_ns = time.time_ns
sleep = time.sleep


def _mark() -> None:
    global first_bytecode_ns
    first_bytecode_ns = realtime_ns()
    # So that the rehearsal knows the way into it: a child that stands is not to miss its own bed.
    sleep(0)


os.register_at_fork(after_in_child=_mark)

import numpy  # noqa: E402

import mitosis  # noqa: E402

MB = 1 << 20
PAGE_WORDS = 4096 // 8
# For the one who reads the counters of the agent while a child stands at its first bytecode.
STAND_S = 0.25
# A child that is to be measured lets what started it come to rest.
REST_S = 0.03

array = numpy.arange(int(sys.argv[1]) * MB // 8, dtype=numpy.uint64)
small = numpy.arange(1000, dtype=numpy.uint64)
private = numpy.arange(MB // 8, dtype=numpy.uint64)
touching: Any = None
seed: mitosis.Seed | None = None
forked = 0
stands = False
children: list[mitosis.Child] = []
now_ns = time.perf_counter_ns


def say(value: dict[str, Any]) -> None:
    """One line, written at once: others write to the same pipe."""
    os.write(1, json.dumps(value).encode() + b"\n")


def live(me: mitosis.Resumed, returned_ns: int) -> None:
    """A child's life, as its payload tells it."""
    said: dict[str, Any] = {
        "child": me.index,
        "first_bytecode_ns": first_bytecode_ns,
        "returned_ns": returned_ns,
    }
    verb, *rest = json.loads(me.payload)
    if verb == "sum":
        small.sum()
        time.sleep(REST_S)
        begun = now_ns()
        total = int(array.sum())
        said |= {"ns": now_ns() - begun, "sum": total}
    elif verb == "touch":
        time.sleep(REST_S)
        said["median_ns"] = touching.touch(*rest)
    elif verb == "share":
        said["sum"] = int(array.sum())
        private[:] = me.index
    say(said)
    if verb in ("stay", "share"):
        signal.pause()
    os._exit(0)


def prepare() -> tuple[int, int]:
    """Makes `seed`; the ns for which this process stood still, and when it went on."""
    global seed
    begun = now_ns()
    me = mitosis.prepare()
    returned_ns, ended = realtime_ns(), now_ns()
    if stands:
        sleep(STAND_S)
    if isinstance(me, mitosis.Resumed):
        live(me, returned_ns)
    assert isinstance(me, mitosis.Seed)
    seed = me
    return ended - begun, ended


def fork() -> tuple[int, int]:
    """As `prepare`, with os.fork()."""
    global forked
    begun = now_ns()
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    ended = now_ns()
    forked = pid
    return ended - begun, ended


def write_each_page() -> int:
    """ns for one write to each page of the array."""
    begun = now_ns()
    array[::PAGE_WORDS] = 7
    return now_ns() - begun


def verb_prepare() -> dict[str, Any]:
    pause_ns, begun = prepare()
    assert seed is not None
    _ = seed.handle
    return {"pause_ns": pause_ns, "published_ns": now_ns() - begun}


def verb_stand() -> None:
    """From now on children stand for a while when prepare() has returned (and so does this process)."""
    global stands
    stands = True


def verb_fork() -> dict[str, Any]:
    pause_ns, _ = fork()
    return {"pause_ns": pause_ns}


def verb_write_after(what: str) -> dict[str, Any]:
    prepare() if what == "prepare" else fork()
    return {"ns": write_each_page()}


def verb_resume(host: str | None, count: int, payload: list[Any]) -> dict[str, Any]:
    assert seed is not None
    started = mitosis.resume(seed.handle, host=host, n=count, payload=json.dumps(payload).encode())
    some = started if isinstance(started, list) else [started]
    children.extend(some)
    report = some[0].report
    return {
        "requested_ns": report.requested_at_ns,
        "descriptor_bytes": report.descriptor_bytes,
        "pages_total": report.pages_total,
        "new_template": report.new_template,
    }


def verb_wait() -> list[int]:
    statuses = [child.wait(20) for child in children]
    children.clear()
    return statuses


def verb_kill() -> list[int]:
    for child in children:
        child.kill(signal.SIGKILL)
    return verb_wait()


def verb_drop() -> None:
    """Ends what prepare and fork have made."""
    global seed, forked
    if seed is not None:
        seed.drop()
        seed = None
    if forked:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        forked = 0


def verb_touching(library: str, pages: int) -> None:
    """Gets memory for children to touch."""
    global touching
    import ctypes

    touching = ctypes.CDLL(library)
    touching.touch.restype = ctypes.c_long
    if touching.touch_prepare(pages) != 0:
        raise MemoryError(f"{pages} pages")


def verb_sum() -> int:
    return int(array.sum())


def main() -> None:
    """Until the end of standard input."""
    verbs = {name.removeprefix("verb_"): f for name, f in globals().items() if name[:5] == "verb_"}
    say({"reply": "warm"})
    while line := sys.stdin.readline():
        verb, *arguments = json.loads(line)
        say({"reply": verbs[verb](*arguments)})


if __name__ == "__main__":
    main()
