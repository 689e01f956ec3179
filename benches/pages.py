"""How fast pages come: an array over tcp, a single miss on one host."""

from __future__ import annotations

import machine
import peers
from measurement import SAMPLES_MIN, Bar, Measurement
from warm import warm
from world import world

_MEGABYTES = 200
_BYTES = _MEGABYTES << 20
_PORT = 7777
_TOUCHED_PAGES_A_RUN = 512


def tcp_read() -> list[Measurement]:
    """A child on host B sums an array of host A's; a C receiver takes as many bytes and sums them."""
    measured = Measurement(
        "tcp_read_200mb",
        "MB/s",
        Bar(">=", factor_of_peer=0.85),
        f"sum() over {_MEGABYTES} MiB in the first child of a new seed; senders on one CPU, all of host B on "
        "the other; MB are 10^6 bytes",
        peer="C: recv, write(2) to a memfd, sum",
        beside={"raw stream, MB/s": [], "misses": []},
    )
    stream = peers.compiled("stream", "stream.c")
    with (
        world(pinned=True, files=(stream,)) as hosts,
        peers.running(hosts.a, stream, "send", _PORT, _BYTES, cpu=machine.CPU_A) as sender,
        warm(hosts, _MEGABYTES, machine.CPU_A) as process,
    ):
        peers.line_of(sender)
        expected = process.ask("sum")

        def receive(how: str) -> float:
            took = hosts.b.run_json(
                stream, how, hosts.a.address, _PORT, _BYTES, cpu=machine.CPU_B
            )
            if how == "memfd" and took["sum"] != expected:
                raise RuntimeError(f"the receiver's sum is {took['sum']}, not {expected}")
            return _BYTES / took["seconds"] / 1e6

        for _ in range(SAMPLES_MIN):
            process.ask("prepare")
            before = hosts.b.stats()["misses"]
            process.resume(hosts.b.name, 1, "sum")
            [child] = process.of_children(1)
            measured.beside["misses"].append(hosts.b.stats()["misses"] - before)
            process.wait()
            if child["sum"] != expected:
                raise RuntimeError(f"the child's sum is {child['sum']}, not {expected}")
            measured.samples.append(_BYTES / child["ns"] * 1e3)
            process.ask("drop")
            hosts.wait_for_no_image()
            measured.peer_samples.append(receive("memfd"))
            measured.beside["raw stream, MB/s"].append(receive("raw"))
    return [measured]


def miss() -> list[Measurement]:
    """A child on host A touches far-apart pages of its seed; so does a process before a bare loop."""
    measured = Measurement(
        "miss_4k_local",
        "us",
        Bar("<=", factor_of_peer=1.3),
        f"each sample the median of {_TOUCHED_PAGES_A_RUN} touches, MADV_RANDOM; pager and toucher on one CPU "
        "on both sides",
        peer="bare /dev/fuse loop, static page",
    )
    bare = peers.compiled("bare_fuse", "bare_fuse.c", "touch.c")
    touch = peers.compiled("libtouch.so", "touch.c", shared=True)
    with (
        world(pinned=True) as hosts,
        peers.running(hosts.a, bare, cpu=machine.CPU_A) as loop,
        warm(hosts, 1, machine.CPU_A) as process,
    ):
        assert loop.stdin is not None
        process.ask("touching", str(touch), SAMPLES_MIN)
        process.ask("prepare")
        for number in range(SAMPLES_MIN):
            process.resume(None, 1, "touch", number)
            [child] = process.of_children(1)
            process.wait()
            measured.samples.append(child["median_ns"] / 1e3)
            loop.stdin.write(b"\n")
            loop.stdin.flush()
            measured.peer_samples.append(peers.line_of(loop) / 1e3)
        process.ask("drop")
    return [measured]
