"""A storm of misses over tcp: 64 threads of one child on host B, each touching pages that nobody has touched."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import machine
from measurement import Bar, Measurement
from world import END_LIMIT_S, World, built, world

NAMES = ("tcp_storm_64_threads",)
_THREADS = 64
_PAGES_EACH = 8
_PAGES = _THREADS * _PAGES_EACH
# 512 MiB: a block of 16 KiB for each touch, for both sides of each round; none is touched twice.
_WORDS = 1 << 26
_CHILD_LIMIT_S = 20


@contextlib.contextmanager
def _seed(hosts: World) -> Iterator[str]:
    """The handle of a seed that holds the array."""
    command = hosts.a.command(built("suite-told"), _WORDS, cpu=machine.CPU_A, agent=True)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[0]
        finally:
            process.kill()
            process.wait(END_LIMIT_S)


def measure(rounds: int) -> list[Measurement]:
    """By turns with one thread that touches as many."""
    measured = Measurement(
        NAMES[0],
        "pages/s",
        Bar(">=", factor_of_peer=1.0),
        f"{_THREADS} threads of a child, {_PAGES_EACH} pages each, MADV_RANDOM; host A on one CPU, all of host B on "
        "the other",
        peer=f"one thread, {_PAGES} pages",
    )
    with world(pinned=True, files=(built("suite-told"),)) as hosts, _seed(hosts) as handle:
        for number in range(rounds):
            measured.samples.append(_storm(hosts, handle, _THREADS, _PAGES_EACH, 2 * number))
            measured.peer_samples.append(_storm(hosts, handle, 1, _PAGES, 2 * number + 1))
    return [measured]


def _storm(hosts: World, handle: str, threads: int, pages: int, turn: int) -> float:
    """Pages a second."""
    payload = f"storm {threads} {pages} {turn};exit 0"
    argv = ("resume", handle, "--on", hosts.b.name, "--payload", payload)
    command = hosts.a.command(built("mitosis"), *argv, cpu=machine.CPU_A, agent=True)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, timeout=_CHILD_LIMIT_S
    )
    words = done.stdout.split()
    return int(words[1]) / int(words[4]) * 1e9
