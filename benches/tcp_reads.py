"""READs of the tcp fabric against fi_read of libfabric's tcp;ofi_rxm: two processes, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import peers
from measurement import Bar, Measurement
from world import END_LIMIT_S, built

NAMES = ("tcp_read_4k_vs_libfabric", "tcp_read_1m_vs_libfabric")
_BYTES = 64 << 20
_4K, _1M = 4 << 10, 1 << 20
# READs of one sample: some milliseconds.
_READS = {_4K: 500, _1M: 40}
# Longer than between two READs of a reader that spins.
_BUSY_POLL_US = 2000


class Talk:
    """A program that answers each line of its stdin with one of JSON."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def said(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait(END_LIMIT_S)}")
        return dict(json.loads(line))

    def ask(self, *words: str | int) -> dict[str, Any]:
        """What it answers."""
        self.begin(*words)
        return self.said()

    def begin(self, *words: str | int) -> None:
        """Asks; the answer is what it says next."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self._process.stdin.flush()

    def median_us(self, *words: str | int) -> float:
        """Of the READs that it is asked for."""
        return statistics.median(self.ask(*words)["us"])


@contextlib.contextmanager
def talk(program: Path, *argv: str | int, cpu: int) -> Iterator[Talk]:
    """A program on one CPU, ended with the block."""
    process = subprocess.Popen(
        [program, *map(str, argv)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )
    with process:
        try:
            yield Talk(process)
        finally:
            process.kill()


@contextlib.contextmanager
def _ours(busy_poll_us: int) -> Iterator[Talk]:
    """A reader over tcp of a page service that looks so long for the next request before it sleeps."""
    program = built("mitosis-reads")
    own = ("own", "127.0.0.1", _BYTES, "--copy", "--busy-poll-us", busy_poll_us)
    with talk(program, *own, cpu=machine.CPU_A) as owner:
        side = owner.said()["side"]
        with talk(program, "read", "tcp", side, cpu=machine.CPU_B) as reader:
            yield reader


@contextlib.contextmanager
def _libfabric() -> Iterator[Talk]:
    program = peers.compiled("fabric_read", "fabric_read.c", library="fabric")
    with talk(program, "serve", _BYTES, cpu=machine.CPU_A) as owner:
        at = owner.said()
        argv = ("read", at["name"], at["key"], at["addr"], _BYTES)
        with talk(program, *argv, cpu=machine.CPU_B) as reader:
            yield reader


def _mb_s(us: float) -> float:
    return _1M / us


def measure(rounds: int) -> list[Measurement]:
    """One READ at a time, each byte compared between the READs."""
    how = (
        "one READ at a time, the median of {} a sample; loopback, owner on one CPU, reader on the other; both "
        "sides spin, ours beside it also with both asleep while they wait"
    )
    peer = "libfabric tcp;ofi_rxm, fi_read"
    small = Measurement(
        NAMES[0],
        "us",
        Bar("<=", factor_of_peer=1.0),
        how.format(_READS[_4K]),
        peer=peer,
        beside={"ours asleep, us": []},
    )
    large = Measurement(
        NAMES[1],
        "MB/s",
        Bar(">=", factor_of_peer=1.0),
        how.format(_READS[_1M]),
        peer=peer,
        beside={"ours asleep, MB/s": []},
    )
    # One pair of programs at a time spins, so that none takes a CPU from another: what is not asked sleeps
    # or, as libfabric's owner, must be ended.
    for _ in range(rounds):
        with _ours(_BUSY_POLL_US) as reader:
            small.samples.append(_sample(reader, _4K, "spin"))
            large.samples.append(_mb_s(_sample(reader, _1M, "spin")))
        with _libfabric() as reader:
            small.peer_samples.append(_sample(reader, _4K))
            large.peer_samples.append(_mb_s(_sample(reader, _1M)))
        with _ours(0) as reader:
            small.beside["ours asleep, us"].append(_sample(reader, _4K, "sleep"))
            large.beside["ours asleep, MB/s"].append(_mb_s(_sample(reader, _1M, "sleep")))
    return [small, large]


def _sample(reader: Talk, size: int, *wait: str) -> float:
    verb = ("serial",) if wait else ()
    reader.median_us(*verb, size, _READS[size] // 4, *wait)
    return reader.median_us(*verb, size, _READS[size], *wait)
