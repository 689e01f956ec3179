"""READs of the rc fabric against perftest, between two emulated machines with Soft-RoCE, in one boot.

What is measured is an emulator: ratios within a boot mean something, figures do not.
"""

from __future__ import annotations

import statistics
from typing import Any

import guests
from measurement import Bar, Measurement

NAMES = (
    "rc_read_4k_vs_perftest",
    "rc_read_4k_asleep_vs_perftest",
    "rc_read_64k_vs_perftest",
    "rc_read_1m_vs_perftest",
    "rc_setup",
    "rc_state_kib",
)
LIMIT_S = 600
_JOB_LIMIT_S = 560
# As in the job, one for each of the first names.
_KINDS = ("lat", "event", "64k", "1m")
_BYTES = {"64k": 100 * (64 << 10), "1m": 12 * (1 << 20)}


def measure(rounds: int) -> list[Measurement]:
    """All of it, of one boot."""
    said = guests.run("rc_reads.sh", rounds, _JOB_LIMIT_S, "mitosis-reads")
    measured = [
        _latency(NAMES[0], "polling", "ib_read_lat"),
        _latency(NAMES[1], "asleep until the completion's event", "ib_read_lat -e"),
        _bandwidth(NAMES[2], "64 KiB"),
        _bandwidth(NAMES[3], "1 MiB"),
    ]
    for one, kind in zip(measured, _KINDS, strict=True):
        ours = [value for words, value in said if words == ["ours", kind]]
        peers = [float(value) for words, value in said if words == ["peer", kind]]
        if kind in _BYTES:
            one.samples = [_BYTES[kind] / value["seconds"] / 1e6 for value in ours]
            one.peer_samples = [mib_s * guests.MIB / 1e6 for mib_s in peers]
        else:
            one.samples = [statistics.median(value["us"]) for value in ours]
            one.peer_samples = peers
    seen = {words[1]: value for words, value in said if words[0] == "seen"}
    return [*measured, *_connections(seen, rounds)]


def _latency(name: str, wait: str, peer: str) -> Measurement:
    how = f"4 KiB, one READ of the same bytes at a time, {wait} on both sides; {guests.EMULATED}"
    return Measurement(name, "us", Bar("<=", factor_of_peer=1.15), how, peer=peer)


def _bandwidth(name: str, size: str) -> Measurement:
    how = f"{size}, 16 READs at a time, polling on both sides; {guests.EMULATED}"
    return Measurement(name, "MB/s", Bar(">=", factor_of_peer=0.9), how, peer="ib_read_bw")


def _connections(seen: dict[str, Any], rounds: int) -> list[Measurement]:
    """What a connection takes; the bars only say what would be out of order."""
    setup = Measurement(
        "rc_setup",
        "ms",
        Bar("<=", value=1000.0),
        "from a fabric that knows no peer to its first READ's end, less a READ: token, rdma-cm, QP, CQ; the bar "
        f"is the fabric's own limit; {guests.EMULATED}",
        samples=[us / 1e3 for us in seen["setup-rc"]["us"]],
        beside={"tcp: token, connect, greeting": [us / 1e3 for us in seen["setup-tcp"]["us"]]},
    )
    state = seen["state-rc"]
    each = state["kib"] / state["connections"]
    held = Measurement(
        "rc_state_kib",
        "KiB",
        Bar("<=", value=1024.0),
        f"of the reading host's free memory, a connection, by the difference that {state['connections']} make, "
        "kernel and process together; a peer has at most 8, however many its seeds; one figure, repeated",
        samples=[each] * rounds,
    )
    return [setup, held]
