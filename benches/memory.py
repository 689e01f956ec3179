"""What a hundred children cost the host that runs them."""

from __future__ import annotations

import machine
from measurement import SAMPLES_MIN, Bar, Measurement
from warm import warm
from world import world

_CHILDREN = 100
_READ_MB = 50
_LIMIT_MB = 66 + _CHILDREN * 1.5
_MB = 10**6


def host_memory() -> list[Measurement]:
    """One memory cgroup holds agent, keeper, templates and children."""
    measured = Measurement(
        f"host_memory_{_CHILDREN}_children",
        "MB",
        Bar("<=", value=_LIMIT_MB),
        f"each of {_CHILDREN} children reads the same {_READ_MB} MiB and writes 1 MiB; MB are 10^6 bytes; all that is charged to "
        "the cgroup of agent B, keeper and children, page cache and kernel memory too",
        beside={"MB before the seed": []},
    )
    with (
        machine.memory_group() as group,
        world(pinned=True, before_b=group.enter) as hosts,
        warm(hosts, _READ_MB, machine.CPU_A) as process,
    ):
        for _ in range(SAMPLES_MIN):
            measured.beside["MB before the seed"].append(group.bytes() / _MB)
            process.ask("prepare")
            process.resume(hosts.b.name, _CHILDREN, "share")
            said = process.of_children(_CHILDREN)
            if len({child["sum"] for child in said}) != 1:
                raise RuntimeError("the children do not agree on the sum")
            measured.samples.append(group.bytes() / _MB)
            process.ask("kill")
            process.ask("drop")
            hosts.wait_for_no_image()
    return [measured]
