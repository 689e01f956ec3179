"""Node, unmodified: an http server with a worker, timers and the thread pool of files."""

import json
import shutil
import socket
import time
from pathlib import Path

from preloaded import child, connect, program

APP = Path(__file__).parent / "programs" / "app.js"
WARM = 20
ANSWER_LIMIT_S = 20


def ask(path, what, running=None):
    """What the server says to a request of its own connection."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(ANSWER_LIMIT_S)
        connect(talk, str(path), running)
        talk.sendall(f"GET /{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := talk.recv(1 << 16):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 OK" in head.partition(b"\r\n")[0], answer
    # One chunk, or a length: the body is what stands between the brackets.
    return json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])


def test_node_answers_in_children_as_it_would_have(both):
    # Not what PATH has on a sealed host: the same program for both.
    node = shutil.which("node")
    assert node is not None, "no node in PATH: run this by `make test-runtimes`"
    at = both.directory / "s"
    with program(both, node, APP, at) as parent:
        assert parent.line() == "ready"
        for _ in range(WARM):
            before = ask(both.path(both.a, "s"), "warm")
        handle = parent.prepare()
        drawn = [before["drawn"]]
        for name in ("t", "u"):
            with child(both, handle, "--listen", f"unix:{at}={both.directory / name}") as running:
                first = ask(both.path(both.b, name), name, running)
                # Its own count and its worker's go on from where both were; its id is what it was.
                assert (first["asked"], first["count"]) == (WARM + 1, WARM + 1)
                assert (first["said"], first["pid"]) == (f"/{name}", before["pid"])
                assert first["read"] and first["ticks"] >= before["ticks"]
                time.sleep(0.2)
                second = ask(both.path(both.b, name), name, running)
                assert second["asked"] == WARM + 2 and second["ticks"] > first["ticks"]
                drawn += [first["drawn"], second["drawn"]]
        # The parent has seen none of it.
        after = ask(both.path(both.a, "s"), "after")
        assert (after["asked"], after["count"]) == (WARM + 1, WARM + 1)
        drawn.append(after["drawn"])
    assert len(set(drawn)) == len(drawn), "random numbers of parent and children are their own"
