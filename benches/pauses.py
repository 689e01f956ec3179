"""What the parent feels: the pause of prepare(), and its writes afterwards, against os.fork()."""

from __future__ import annotations

from collections.abc import Iterator

import machine
from measurement import SAMPLES_MIN, Bar, Measurement
from warm import warm
from world import World, world

_SIDES = ("prepare", "fork")


def _turns() -> Iterator[tuple[str, str]]:
    """Both sides by turns, each first as often as the other."""
    for turn in range(SAMPLES_MIN):
        yield _SIDES if turn % 2 == 0 else (_SIDES[1], _SIDES[0])


def prepare_pause(size: str, megabytes: int) -> list[Measurement]:
    """prepare() against os.fork(), each in a fresh process that is asked once."""
    measured = Measurement(
        f"prepare_pause_{size}",
        "ms",
        Bar("<=", factor_of_peer=1.3, plus=0.5),
        f"CPython + numpy + an array of {megabytes} MiB (numpy's own THP advice), no hooks; the first call "
        "in a fresh process, processes by turns",
        peer="os.fork()",
        beside={"ms until published": []},
    )
    with world(pinned=True) as hosts:
        for turn in _turns():
            for side in turn:
                _pause(hosts, megabytes, side, measured)
    return [measured]


def _pause(hosts: World, megabytes: int, side: str, measured: Measurement) -> None:
    with warm(hosts, megabytes, machine.CPU_B) as process:
        answer = process.ask(side)
        to = measured.samples if side == "prepare" else measured.peer_samples
        to.append(answer["pause_ns"] / 1e6)
        if side == "prepare":
            measured.beside["ms until published"].append(answer["published_ns"] / 1e6)
        process.ask("drop")


def parent_after_prepare() -> list[Measurement]:
    """The first write to each page after prepare() and after os.fork()."""
    megabytes = 200
    measured = Measurement(
        "parent_after_prepare",
        "ms",
        Bar("<=", factor_of_peer=1.1),
        f"one write to each page of {megabytes} MiB right after, in fresh processes by turns; both copies "
        "alive; not pinned",
        peer="after os.fork()",
    )
    with world(pinned=True) as hosts:
        for turn in _turns():
            for side in turn:
                with warm(hosts, megabytes, None) as process:
                    took_ms = process.ask("write_after", side)["ns"] / 1e6
                    process.ask("drop")
                (measured.samples if side == "prepare" else measured.peer_samples).append(took_ms)
    return [measured]
