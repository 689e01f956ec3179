"""A fork of CPython by rc against what its READs cost by themselves, and a storm of misses, in guests."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import guests
from measurement import Bar, Measurement

NAMES = ("rc_fork_vs_reads", "rc_storm_64_threads", "rc_reads_per_doorbell")
LIMIT_S = 900
_JOB_LIMIT_S = 860
_PAGE = 4096
_PIECE = 128 << 10
_PIECES = 60
# One is what a storm had before its misses were gathered.
_READS_PER_DOORBELL = 1.5


class _Network:
    """READs of one fabric, or of perftest, in the boot."""

    def __init__(self, lat_us: list[float], bytes_per_us: list[float]) -> None:
        self.lat_us = statistics.median(lat_us)
        self.bytes_per_us = statistics.median(bytes_per_us)

    def us(self, counted: dict[str, int]) -> float:
        """Its misses, one after the other, and its bytes."""
        read = counted["pages_pulled"] * _PAGE
        return counted["misses"] * self.lat_us + read / self.bytes_per_us

    def __str__(self) -> str:
        return f"{self.lat_us:.0f} us a 4 KiB READ, {self.bytes_per_us:.1f} MB/s"


def measure(rounds: int) -> list[Measurement]:
    """Both, of one boot."""
    said = guests.run("rc_forks.sh", rounds, _JOB_LIMIT_S)

    def of(*words: str) -> list[Any]:
        return [value for said_words, value in said if said_words == list(words)]

    def reads(fabric: str) -> _Network:
        lat = [statistics.median(value["us"]) for value in of("read", fabric) if "us" in value]
        seconds = [value["seconds"] for value in of("read", fabric) if "seconds" in value]
        # The first is for the connection.
        return _Network(lat[1:], [_PIECES * _PIECE / 1e6 / took for took in seconds])

    peer = _Network(of("peer", "lat"), [mib_s * guests.MIB / 1e6 for mib_s in of("peer", "bw")])
    tcp, rc = reads("tcp"), reads("rc")
    forked = {fabric: [value["us"] for value in of("forked", fabric)] for fabric in ("rc", "tcp")}
    # Counters grow for ever: a fork's are the difference that it made.
    counted = {fabric: _differences(of("counted", fabric)) for fabric in ("rc", "tcp")}
    by_card = statistics.median(one["pages_rdma"] / one["pages_pulled"] for one in counted["rc"])
    if by_card < 0.5:
        raise RuntimeError(f"the card read only {by_card:.0%} of a fork's pages")
    outside = [took - tcp.us(one) for took, one in zip(forked["tcp"], counted["tcp"], strict=True)]
    outside_us = max(0.0, statistics.median(outside))
    fork = Measurement(
        NAMES[0],
        "ms",
        Bar("<=", factor_of_peer=1.2),
        "from resume() to the end of a child that sums 4 MiB, by turns with tcp; peer: the rc run's misses x ib_read_lat + its pulled "
        f"bytes / ib_read_bw ({peer}) + the tcp run's median time less its misses x tcp's READ + bytes / tcp's "
        f"rate ({tcp}); rc's own: {rc}; {guests.EMULATED}",
        peer="its READs by perftest, and tcp's rest",
        samples=[us / 1e3 for us in forked["rc"]],
        peer_samples=[(peer.us(one) + outside_us) / 1e3 for one in counted["rc"]],
        beside={
            "misses": [one["misses"] for one in counted["rc"]],
            "pages pulled": [one["pages_pulled"] for one in counted["rc"]],
            "of them by the card": [one["pages_rdma"] for one in counted["rc"]],
            "misses x lat, ms": [one["misses"] * peer.lat_us / 1e3 for one in counted["rc"]],
            "bytes / bw, ms": [
                one["pages_pulled"] * _PAGE / peer.bytes_per_us / 1e3 for one in counted["rc"]
            ],
            "tcp's rest, ms": [us / 1e3 for us in outside],
            "the same by tcp, ms": [us / 1e3 for us in forked["tcp"]],
            "tcp's misses": [one["misses"] for one in counted["tcp"]],
        },
    )
    storm = Measurement(
        NAMES[1],
        "pages/s",
        Bar(">=", factor_of_peer=1.0),
        f"64 threads of a child, each touching 4 pages of which nothing near has been touched; by turns with tcp; {guests.EMULATED}",
        peer="the same by tcp",
        samples=of("stormed", "rc"),
        peer_samples=of("stormed", "tcp"),
    )
    snapshots = [of("counted", "rc")[-1], *of("rung", "rc")]
    posted = _differences(snapshots)
    if not all(made["rdma_reads"] for made in posted):
        raise RuntimeError(f"a storm was not READ by the card: {posted}")
    rung = Measurement(
        NAMES[2],
        "READs",
        Bar(">=", value=_READS_PER_DOORBELL),
        f"rdma_reads / rdma_doorbells of the storm's agent: what its pager is asked while READs are in flight shares a "
        f"doorbell; {guests.EMULATED}",
        samples=[made["rdma_reads"] / made["rdma_doorbells"] for made in posted],
    )
    return [fork, storm, rung]


def _differences(snapshots: list[dict[str, int]]) -> list[dict[str, int]]:
    """What each snapshot has more than the one before it, of its plain numbers."""
    numbers = [{name: one for name, one in every.items() if isinstance(one, int)} for every in snapshots]
    pairs = itertools.pairwise(numbers)
    return [{name: after[name] - before[name] for name in after} for before, after in pairs]
