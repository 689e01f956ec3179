"""READ streams that are encrypted against plain ones: two owners, a reader of each, on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import machine
from measurement import Bar, Measurement
from tcp_reads import Talk, talk
from world import built

NAMES = ("encrypted_read_4k", "encrypted_push")
# What is owned, and what a push brings.
_BYTES = 64 << 20
_4K, _1M = 4 << 10, 1 << 20
_READS = {_4K: 500, _1M: 40}


@contextlib.contextmanager
def _reader(*options: str) -> Iterator[Talk]:
    """A reader of an owner with these options; both sleep while they wait."""
    program = built("mitosis-reads")
    own = ("own", "127.0.0.1", _BYTES, "--copy", *options)
    with talk(program, *own, cpu=machine.CPU_A) as owner:
        side = owner.said()["side"]
        with talk(program, "read", "tcp", side, cpu=machine.CPU_B) as reader:
            yield reader


def _read_us(reader: Talk, size: int) -> float:
    return reader.median_us("serial", size, _READS[size], "sleep")


def _push_mb_s(reader: Talk) -> float:
    return float(_BYTES / 1e6 / reader.ask("push")["seconds"])


def measure(rounds: int) -> list[Measurement]:
    """By turns, each sample of the one followed by one of the other."""
    peer = "the same in plain"
    how = "owner on one CPU, reader on the other, loopback; both sleep while they wait; AES-256-GCM"
    latency = Measurement(
        NAMES[0],
        "us",
        Bar("<=", factor_of_peer=1.0, plus=10),
        f"one READ of 4 KiB at a time, the median of {_READS[_4K]} a sample; {how}",
        peer=peer,
        beside={"of 1 MiB, us": [], "of 1 MiB in plain, us": []},
    )
    push = Measurement(
        NAMES[1],
        "MB/s",
        Bar(">=", factor_of_peer=0.5),
        f"a push of {_BYTES >> 20} MiB, out of the seed's process, stored nowhere; {how}",
        peer=peer,
    )
    with _reader() as plain, _reader("--encrypt") as encrypted:
        for reader in (plain, encrypted):
            _read_us(reader, _1M)
            _push_mb_s(reader)
        for _ in range(rounds):
            latency.samples.append(_read_us(encrypted, _4K))
            latency.peer_samples.append(_read_us(plain, _4K))
            push.samples.append(_push_mb_s(encrypted))
            push.peer_samples.append(_push_mb_s(plain))
            latency.beside["of 1 MiB, us"].append(_read_us(encrypted, _1M))
            latency.beside["of 1 MiB in plain, us"].append(_read_us(plain, _1M))
    return [latency, push]
