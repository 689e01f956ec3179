"""What host A runs in the demo of Node: a client that warms node_app.js and asks its children on host B.

It tells by lines of JSON on standard output; node_run.py reads them.
"""

from __future__ import annotations

import json
import os
import statistics
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

APP = Path(__file__).with_name("node_app.js")
NODE = "node"
PORT_A, PORT_B, PORT_COLD = 8080, 8081, 8082
HOST_B = "host-b"
COLD_STARTS = 7
WARM_REQUESTS, MEASURED_REQUESTS = 4000, 1000
# Seeds whose first child on B is timed, and further children of the last of them.
FIRSTS, FURTHER = 7, 25
# How long a first child stands at its first JavaScript, for node_run.py to read B's counters.
STAND_MS = 2000
# How long node_run.py may take to read them before that.
COUNTING_S = 1.0
ANSWER_LIMIT_S = 20.0


def say(word: str, value: Any) -> None:
    """One line."""
    print(json.dumps({word: value}), flush=True)


class Answer:
    """One HTTP answer over a connection of its own, and how long it took from the connect on."""

    def __init__(self, host: str, port: int, query: str) -> None:
        begun = time.perf_counter_ns()
        with socket.create_connection((host, port), ANSWER_LIMIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = f"GET /?q={query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            connection.sendall(asked.encode())
            pieces = []
            while piece := connection.recv(1 << 16):
                pieces.append(piece)
        self.ms = (time.perf_counter_ns() - begun) / 1e6
        head, _, self.body = b"".join(pieces).partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        if " 200 " not in status:
            raise RuntimeError(f"{host}:{port} answered {status!r}")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


class App:
    """node_app.js, and the talk with it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [NODE, str(APP), str(PORT_A), "--forkable"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._unread: list[dict[str, Any]] = []
        self.start = self.reply()

    def tell(self, verb: str, *arguments: Any) -> None:
        """Gives a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, verb: str, *arguments: Any) -> Any:
        """The answer to one command."""
        self.tell(verb, *arguments)
        return self.reply()

    def said(self, word: str) -> dict[str, Any]:
        """The next line that has this word, from it or a child."""
        assert self.process.stdout is not None
        for at, line in enumerate(self._unread):
            if word in line:
                return self._unread.pop(at)
        while text := self.process.stdout.readline():
            line = json.loads(text)
            if word in line:
                return line
            self._unread.append(line)
        raise RuntimeError(f"node_app.js ended with {self.process.wait(ANSWER_LIMIT_S)}")

    def reply(self) -> Any:
        """The next answer to a command."""
        return self.said("reply")["reply"]

    def child(self) -> dict[str, Any]:
        """What a child says next."""
        return self.said("child")

    def end(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(ANSWER_LIMIT_S)


def cold_start(query: str) -> dict[str, float]:
    """A new node_app.js, until its first answer."""
    begun = time.perf_counter_ns()
    with subprocess.Popen([NODE, str(APP), str(PORT_COLD)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            first = Answer("127.0.0.1", PORT_COLD, query)
            answered_ms = (time.perf_counter_ns() - begun) / 1e6
        finally:
            process.kill()
    return {"answered_ms": answered_ms, "first_request_ms": first.ms}


def warm(words: list[str]) -> list[float]:
    """Thousands of requests; ms of the last of them."""
    took = [Answer("127.0.0.1", PORT_A, words[i % len(words)]).ms for i in range(WARM_REQUESTS)]
    return took[-MEASURED_REQUESTS:]


def fork_to(app: App, host: str, query: str) -> dict[str, Any]:
    """A child on `host` that serves, until its second answer."""
    begun = time.perf_counter_ns()
    app.tell("resume", host, 1, {"port": PORT_B})
    # It may listen before the resume's own answer is there. Told and not asked for again and again, which would take
    # the processors from it, where both hosts are one machine.
    child = app.child()
    first = Answer(host, PORT_B, query)
    answered_ms = (time.perf_counter_ns() - begun) / 1e6
    report = app.reply()
    second = Answer(host, PORT_B, query)
    return {
        "runs_ms": (child["runs_ns"] - report["requested_ns"]) / 1e6,
        "listens_ms": (child["listens_ns"] - report["requested_ns"]) / 1e6,
        "answered_ms": answered_ms,
        "first_request_ms": first.ms,
        "second_request_ms": second.ms,
        "served": int(first.headers["x-served"]),
        "pid": int(first.headers["x-pid"]),
        "etag": first.headers["etag"],
        "report": report,
    }


def main() -> None:
    """From cold starts to the last child."""
    app = App()
    words = app.start["words"]
    query = words[5]
    say("cold", [cold_start(query) for _ in range(COLD_STARTS)])
    say("warm_ms", statistics.median(warm(words)))
    mine = Answer("127.0.0.1", PORT_A, query)
    say("parent", {"etag": mine.headers["etag"], "served": int(mine.headers["x-served"])} | app.start)
    firsts, furthers, pauses = [], [], []
    for number in range(FIRSTS):
        prepared = app.ask("prepare")
        pauses.append(prepared["pause_ms"])
        firsts.append(fork_to(app, HOST_B, query))
        app.ask("kill")
        for _ in range(FURTHER if number == FIRSTS - 1 else 0):
            furthers.append(fork_to(app, HOST_B, query))
            app.ask("kill")
        app.ask("drop")
    # One that stands at its first JavaScript, while node_run.py reads the counters of B.
    app.ask("prepare")
    say("counting", None)
    time.sleep(COUNTING_S)
    app.ask("resume", HOST_B, 1, {"stand": STAND_MS})
    time.sleep(STAND_MS / 8e3)
    say("standing", None)
    app.child()
    app.ask("wait")
    app.ask("drop")
    app.end()
    say("host", os.uname().nodename)
    say("pauses_ms", pauses)
    say("first", firsts)
    say("next", furthers)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError) as error:
        sys.exit(f"node_story: {error}")
