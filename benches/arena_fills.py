"""The copy of a large seed into its host's arena: how fast, in how much memory, and who notices."""

from __future__ import annotations

import statistics
from pathlib import Path

import machine
from measurement import SMOKE_ROUNDS, Bar, Measurement
from tcp_reads import Talk, talk
from warm import warm
from world import built, world

NAMES = ("arena_fill_4gib", "arena_fill_memory", "arena_fill_read_4k", "arena_fill_prepare_30mb")
LIMIT_S = 420
_GIB = 1 << 30
_BYTES = 4 * _GIB
# It is held, copied, and read once more in part.
_SHARE_OF_MEMORY = 3
_SLAB_BYTES = 16 << 20
_PEER_BYTES = _GIB
_READS = 300


def measure(rounds: int) -> list[Measurement]:
    """Each round: a copy, READs and a prepare() meanwhile, and all of them alone."""
    size = (64 << 20) if rounds == SMOKE_ROUNDS else min(_BYTES, _available() // _SHARE_OF_MEMORY) & -_SLAB_BYTES
    what = f"{size / _GIB:.2g} GiB"
    filled = Measurement(
        NAMES[0],
        "GB/s",
        Bar(">=", factor_of_peer=0.8),
        f"a seed of {what}, from its export until all of it lies in the arena: slabs of 16 MiB that are new each time, "
        "a thread at nice 10 that READs and a prepare() share a CPU with; no card, so no registration",
        peer="read once, alone, at nice 0",
    )
    memory = Measurement(
        NAMES[1],
        "bytes",
        Bar("<=", value=1.02),
        f"by which the agent's memory grows for a byte of a seed of {what}, to the end of the last slab",
    )
    read = Measurement(
        NAMES[2],
        "us",
        Bar("<=", factor_of_peer=1.5),
        f"a 4 KiB READ over tcp of another seed of the same agent, median of {_READS}, asleep while it waits; "
        f"meanwhile {what} are copied on the CPU of the agent that answers; peer: nothing is copied",
        peer="no copy",
    )
    prepare = Measurement(
        NAMES[3],
        "ms",
        Bar("<=", factor_of_peer=1.5),
        f"the pause of prepare() of CPython, 30 MB; meanwhile {what} are copied on the same CPU; peer: nothing "
        "is copied",
        peer="no copy",
    )
    program = built("mitosis-reads")
    with (
        world(pinned=True) as hosts,
        talk(program, "fill", "127.0.0.1", size, cpu=machine.CPU_B) as owner,
    ):
        side = owner.said()["side"]
        with talk(program, "read", "tcp", side, cpu=machine.CPU_A) as reader:
            for _ in range(rounds):
                with warm(hosts, 1, machine.CPU_B) as process:
                    owner.begin("fill")
                    read.samples.append(_read_us(reader))
                    prepare.samples.append(process.ask("prepare")["pause_ns"] / 1e6)
                    answer = owner.said()
                    process.ask("drop")
                filled.samples.append(size / answer["seconds"] / 1e9)
                memory.samples.append(answer["grown"] / size)
                peer_bytes = min(_PEER_BYTES, size)
                seconds = owner.ask("read", peer_bytes)["seconds"]
                filled.peer_samples.append(peer_bytes / seconds / 1e9)
                read.peer_samples.append(_read_us(reader))
                with warm(hosts, 1, machine.CPU_B) as process:
                    prepare.peer_samples.append(process.ask("prepare")["pause_ns"] / 1e6)
                    process.ask("drop")
    return [filled, memory, read, prepare]


def _read_us(reader: Talk) -> float:
    return statistics.median(reader.ask("serial", 4096, _READS, "sleep")["us"])


def _available() -> int:
    rows = Path("/proc/meminfo").read_text().splitlines()
    return next(int(row.split()[1]) << 10 for row in rows if row.startswith("MemAvailable:"))
