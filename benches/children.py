"""How soon children run: the first one on a host, the next ones, a hundred at once."""

from __future__ import annotations

import time

import machine
from measurement import SAMPLES_MIN, Bar, Measurement
from warm import Warm, warm
from world import World, world

_MEGABYTES = 200
_STORY = f"CPython + numpy + an array of {_MEGABYTES} MiB over tcp"
_FROM_TO = "from the request at host B's agent to the child's first bytecode"
_RETURNED = "ms until prepare() returns"
# The counters are read while the child stands (programs/warm.py: STAND_S) at its first bytecode.
_STANDING_S = 0.08
_NEXT_CHILDREN = 100
_ALIVE = 100


def first_child() -> list[Measurement]:
    """New seeds, each with one child on a host that has not seen it."""
    pinned = Measurement(
        "first_child_pinned_ms",
        "ms",
        Bar("<=", value=5.0),
        f"{_STORY}; {_FROM_TO}; agent B, pager, keeper and child on one CPU, agent A on another",
        beside={_RETURNED: []},
    )
    free = Measurement(
        "first_child_ms", "ms", Bar("<=", value=10.0), f"{_STORY}; {_FROM_TO}; nothing is pinned",
        beside={_RETURNED: []},
    )
    misses = Measurement(
        "first_child_misses",
        "misses",
        Bar("<=", value=40),
        "READs of the pinned first children's image until they stand where prepare() has returned",
        beside={"unpinned": []},
    )
    moved = Measurement(
        "first_child_pages_moved",
        "pages",
        Bar("<=", value=2000),
        "pages pushed and pulled until then, pinned",
        beside={"of them pulled": [], "pages of the seed": []},
    )
    size = Measurement(
        "descriptor_bytes_200mb",
        "bytes",
        Bar("<=", value=65536),
        "the descriptors of these first children's seeds",
    )
    for which in (pinned, free):
        with (
            world(pinned=which is pinned) as hosts,
            warm(hosts, _MEGABYTES, machine.CPU_A if which is pinned else None) as process,
        ):
            process.ask("stand")
            for _ in range(SAMPLES_MIN):
                (first_ms, returned_ms), counted, report = _first(hosts, process)
                which.samples.append(first_ms)
                which.beside[_RETURNED].append(returned_ms)
                if which is free:
                    misses.beside["unpinned"].append(counted["misses"])
                    continue
                misses.samples.append(counted["misses"])
                moved.samples.append(counted["pages_pulled"] + counted["pages_pushed"])
                moved.beside["of them pulled"].append(counted["pages_pulled"])
                moved.beside["pages of the seed"].append(report["pages_total"])
                size.samples.append(report["descriptor_bytes"])
    return [pinned, free, misses, moved, size]


def _took_ms(child: dict[str, int], report: dict[str, int]) -> tuple[float, float]:
    """To the first bytecode, and until prepare() returned."""
    first, returned = (child[what] - report["requested_ns"] for what in ("first_bytecode_ns", "returned_ns"))
    return first / 1e6, returned / 1e6


def _first(
    hosts: World, process: Warm
) -> tuple[tuple[float, float], dict[str, int], dict[str, int]]:
    process.ask("prepare")
    before = hosts.b.stats()
    report = process.resume(hosts.b.name, 1, "stand")
    if not report["new_template"]:
        raise RuntimeError("host B had a template of a seed that it has never seen")
    time.sleep(_STANDING_S)
    counted = {name: count - before[name] for name, count in hosts.b.stats().items()}
    [child] = process.of_children(1)
    process.wait()
    process.ask("drop")
    hosts.wait_for_no_image()
    return _took_ms(child, report), counted, report


def next_child() -> list[Measurement]:
    """Further children of a seed that host B holds, one after the other."""
    measured = Measurement(
        "next_child_ms",
        "ms",
        Bar("<=", value=0.3),
        f"{_STORY}; {_FROM_TO}; one at a time, host B on one CPU",
        beside={_RETURNED: []},
    )
    with world(pinned=True) as hosts, warm(hosts, _MEGABYTES, machine.CPU_A) as process:
        process.ask("prepare")
        for number in range(_NEXT_CHILDREN + 1):
            report = process.resume(hosts.b.name, 1, "time")
            [child] = process.of_children(1)
            process.wait()
            if number > 0:
                first_ms, returned_ms = _took_ms(child, report)
                measured.samples.append(first_ms)
                measured.beside[_RETURNED].append(returned_ms)
        process.ask("drop")
    return [measured]


def children_alive() -> list[Measurement]:
    """A hundred children of one seed that all live at once."""
    measured = Measurement(
        f"children_alive_{_ALIVE}",
        "children",
        Bar(">=", value=_ALIVE),
        f"{_STORY}; one resume, all have run and wait; counted by host B's agent",
        beside={"ms until all have run": [], "ms for each": []},
    )
    with world(pinned=True) as hosts, warm(hosts, _MEGABYTES, machine.CPU_A) as process:
        process.ask("prepare")
        for _ in range(SAMPLES_MIN):
            report = process.resume(hosts.b.name, _ALIVE, "stay")
            said = process.of_children(_ALIVE)
            measured.samples.append(float(hosts.b.children()))
            process.ask("kill")
            took_ms = max(_took_ms(child, report)[1] for child in said)
            measured.beside["ms until all have run"].append(took_ms)
            measured.beside["ms for each"].append(took_ms / _ALIVE)
        process.ask("drop")
    return [measured]
