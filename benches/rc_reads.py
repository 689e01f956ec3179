"""READs of the rc fabric against perftest, and of dc beside it, between two emulated machines with Soft-RoCE, in
one boot.

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
    "dc_setup",
    "dc_state_kib",
)
LIMIT_S = 600
_JOB_LIMIT_S = 560
# As in the job, one for each of the first names.
_KINDS = ("lat", "event", "64k", "1m")
_CM = "perftest by rdma-cm, as ours (-R -o 16)"
_SOFTWARE_DC = "dc on the software provider of tests/dc_provider, not on a card"
_BYTES = {"64k": 100 * (64 << 10), "1m": 12 * (1 << 20)}


def measure(rounds: int) -> list[Measurement]:
    """All of it, of one boot."""
    said = guests.run("rc_reads.sh", rounds, _JOB_LIMIT_S)
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
    for one, kind in zip(measured, _KINDS, strict=True):
        by_cm = [float(value) for words, value in said if words == ["peer", f"cm-{kind}"]]
        one.beside = {_CM: [v * guests.MIB / 1e6 if kind in _BYTES else v for v in by_cm]}
    seen = {words[1]: value for words, value in said if words[0] == "seen"}
    by_dc = [value["us"] for words, value in said if words == ["seen", "lat-dc"]]
    setups = {
        fabric: [us / 1e3 for words, value in said if words == ["seen", f"setup-{fabric}"] for us in value["us"]]
        for fabric in ("rc", "tcp", "dc")
    }
    return [*measured, *_connections(seen, setups, rounds), *_dc(seen, setups, by_dc, rounds)]


def _latency(name: str, wait: str, peer: str) -> Measurement:
    how = f"4 KiB, one READ of the same bytes at a time, {wait} on both sides; {guests.EMULATED}"
    return Measurement(name, "us", Bar("<=", factor_of_peer=1.15), how, peer=peer)


def _bandwidth(name: str, size: str) -> Measurement:
    how = f"{size}, 16 READs at a time, polling on both sides; {guests.EMULATED}"
    return Measurement(name, "MB/s", Bar(">=", factor_of_peer=0.9), how, peer="ib_read_bw")


def _connections(seen: dict[str, Any], setups: dict[str, list[float]], rounds: int) -> list[Measurement]:
    """What a connection takes; the bars only say what would be out of order."""
    setup = Measurement(
        "rc_setup",
        "ms",
        Bar("<=", value=1000.0),
        "from a fabric that knows no peer to its first READ's end, less a READ: token, rdma-cm, QP, CQ; by turns "
        f"with tcp and dc; the bar is the fabric's own limit; {guests.EMULATED}",
        samples=setups["rc"],
        beside={"tcp: token, connect, greeting": setups["tcp"]},
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


def _dc(
    seen: dict[str, Any], setups: dict[str, list[float]], by_dc: list[list[float]], rounds: int
) -> list[Measurement]:
    """What a peer takes by dc, beside rc."""
    setup = Measurement(
        "dc_setup",
        "ms",
        Bar("<=", factor_of_peer=1.0),
        "from a fabric with its initiators that knows no peer to its first READ's end, less a READ: an address "
        f"handle, and what the provider does for a card; by turns with rc; {_SOFTWARE_DC}; {guests.EMULATED}",
        peer="rc",
        samples=setups["dc"],
        peer_samples=setups["rc"],
        beside={"a 4 KiB READ by dc, ms": [statistics.median(us) / 1e3 for us in by_dc]},
    )
    ways, rc = seen["state-dc"], seen["state-rc"]
    held = Measurement(
        "dc_state_kib",
        "KiB",
        Bar("<=", factor_of_peer=0.1),
        f"of the reading host's free memory, a peer, by the difference that {ways['peers']} make: an address handle "
        "each; initiators are at most 16 for all peers and seeds; peer: a connection of rc, of which a peer has up to "
        f"8; one figure, repeated; {_SOFTWARE_DC}",
        peer="rc, a connection",
        samples=[max(0.0, ways["kib"] / ways["peers"])] * rounds,
        peer_samples=[rc["kib"] / rc["connections"]] * rounds,
    )
    return [setup, held]
