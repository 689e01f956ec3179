"""Node: how long a warm server stands still, how soon its children run JavaScript and answer, against a cold one.

The program is that of the demo (examples/demo/node_app.js): an http server over an index that it builds at its
start, warmed by thousands of requests. Host B has no node.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measurement import Bar, Measurement
from world import END_LIMIT_S, World, world

_PROGRAM = Path(__file__).with_name("programs") / "node_client.py"
NAMES = (
    "node_prepare_pause_ms",
    "node_first_child_ms",
    "node_next_child_ms",
    "node_first_request_ratio",
    "node_first_answer_ms",
)
# Building the index and warming the server take some seconds in each of two worlds.
LIMIT_S = 240
_STORY = "the warm http server of examples/demo/node_app.js over tcp; nothing is pinned"


class Client:
    """programs/node_client.py on host A, and the talk with it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ask(self, verb: str, *arguments: Any) -> Any:
        """The answer to one command."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait(END_LIMIT_S)
            raise RuntimeError(f"the client on host A ended with {status} at: {verb}")
        return json.loads(line)


@contextlib.contextmanager
def _client(hosts: World) -> Iterator[Client]:
    command = hosts.a.command(hosts.python, _PROGRAM, agent=True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Client(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(END_LIMIT_S)
        finally:
            if process.poll() is None:
                process.kill()


def measure(rounds: int) -> list[Measurement]:
    """All of it, with one warm server: `rounds` of seeds, further children and cold starts each."""
    pause = Measurement(
        "node_prepare_pause_ms",
        "ms",
        Bar("<=", value=5.0),
        f"{_STORY}; how long all of its threads stand still, until the promise can go on",
        beside={"ms until published, rehearsal included": [], "threads": []},
    )
    first = Measurement(
        "node_first_child_ms",
        "ms",
        Bar("<=", value=8.0),
        f"{_STORY}; from the request at host B's agent to the child's first JavaScript; new seeds",
        beside={"ms until it listens": [], "descriptor bytes": []},
    )
    following = Measurement(
        "node_next_child_ms",
        "ms",
        Bar("<=", value=1.0),
        f"{_STORY}; likewise, further children of a seed, one after the other, the warm parent's requests between them",
        beside={"ms until it listens": []},
    )
    request = Measurement(
        "node_first_request_ratio",
        "x",
        Bar("<=", value=1.5),
        "a child's first request on host B, by a client on host A, over the warm parent's median by the "
        "same client; a connection each",
        beside={
            "ms of it": [],
            "ms of its second": [],
            "ms of the warm parent": [],
            "ms of the warm parent's first, after its rest during the fork": [],
            "ms of the warm parent's first, after 0.25 s of rest": [],
            "ms of a cold node's first": [],
        },
    )
    answer = Measurement(
        "node_first_answer_ms",
        "ms",
        Bar("<=", factor_of_peer=0.1),
        f"{_STORY}; from the order to resume to a further child's first answer",
        peer="node app.js",
        beside={"of a first child": []},
    )
    with world(pinned=False) as hosts, _client(hosts) as client:
        _firsts(hosts, client, rounds, pause, first, answer)
        _prepare(client)
        client.ask("fork", hosts.b.name)
        _followers(hosts, client, rounds, following, request)
        _answers(hosts, client, rounds, answer, request)
        client.ask("drop")
    return [pause, first, following, request, answer]


def _prepare(client: Client, pause: Measurement | None = None) -> None:
    prepared = client.ask("prepare")
    if pause is not None:
        pause.samples.append(prepared["pause_ms"])
        pause.beside["ms until published, rehearsal included"].append(prepared["published_ms"])
        pause.beside["threads"].append(prepared["threads"])


def _firsts(
    hosts: World,
    client: Client,
    rounds: int,
    pause: Measurement,
    first: Measurement,
    answer: Measurement,
) -> None:
    for _ in range(rounds):
        _prepare(client, pause)
        child = client.ask("fork", hosts.b.name)
        if not child["new_template"]:
            raise RuntimeError("host B had a template of a seed that it has never seen")
        first.samples.append(child["runs_ms"])
        first.beside["ms until it listens"].append(child["listens_ms"])
        first.beside["descriptor bytes"].append(child["descriptor_bytes"])
        answer.beside["of a first child"].append(child["answered_ms"])
        client.ask("drop")
        hosts.wait_for_no_image()


def _followers(
    hosts: World, client: Client, rounds: int, following: Measurement, request: Measurement
) -> None:
    for _ in range(rounds):
        child = client.ask("fork", hosts.b.name)
        warm = client.ask("warm_requests")
        warm_ms = statistics.median(warm)
        following.samples.append(child["runs_ms"])
        following.beside["ms until it listens"].append(child["listens_ms"])
        request.samples.append(child["first_request_ms"] / warm_ms)
        request.beside["ms of it"].append(child["first_request_ms"])
        request.beside["ms of its second"].append(child["second_request_ms"])
        request.beside["ms of the warm parent"].append(warm_ms)
        request.beside["ms of the warm parent's first, after its rest during the fork"].append(warm[0])


def _answers(
    hosts: World, client: Client, rounds: int, answer: Measurement, request: Measurement
) -> None:
    """By turns with a cold start; the warm server serves meanwhile."""
    for _ in range(rounds):
        answer.samples.append(client.ask("fork", hosts.b.name)["answered_ms"])
        client.ask("warm_requests")
        cold = client.ask("cold")
        answer.peer_samples.append(cold["answered_ms"])
        request.beside["ms of a cold node's first"].append(cold["first_request_ms"])
        rested = client.ask("rested_request")
        request.beside["ms of the warm parent's first, after 0.25 s of rest"].append(rested)
