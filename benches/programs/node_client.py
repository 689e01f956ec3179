"""On host A: a client of the demo's web server and of its children on host B, and cold ones for comparison.

Commands are lines of JSON on standard input, [verb, argument...]; each is answered by a line. What it does
is the demo's (examples/demo/node_story.py).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "demo"))

import node_story as demo  # noqa: E402

_WARM_REQUESTS = 40
_REST_S = 0.25

app = demo.App()
words = app.start["words"]
query = words[5]


def verb_prepare() -> dict[str, Any]:
    threads = len(os.listdir(f"/proc/{app.process.pid}/task"))
    prepared = app.ask("prepare")
    return {"threads": threads} | {what: prepared[what] for what in ("pause_ms", "published_ms")}


def verb_fork(host: str) -> dict[str, Any]:
    """A child that serves, until its second answer; ended again."""
    child = demo.fork_to(app, host, query)
    app.ask("kill")
    report = child.pop("report")
    return child | {what: report[what] for what in ("new_template", "descriptor_bytes")}


def verb_warm_requests() -> list[float]:
    return [demo.Answer("127.0.0.1", demo.PORT_A, query).ms for _ in range(_WARM_REQUESTS)]


def verb_rested_request() -> float:
    """The warm server's first, after a quarter of a second without any."""
    time.sleep(_REST_S)
    return demo.Answer("127.0.0.1", demo.PORT_A, query).ms


def verb_cold() -> dict[str, float]:
    return demo.cold_start(query)


def verb_drop() -> None:
    app.ask("drop")


def main() -> None:
    """Until the end of standard input."""
    demo.warm(words)
    verbs = {name.removeprefix("verb_"): f for name, f in globals().items() if name[:5] == "verb_"}
    while line := sys.stdin.readline():
        verb, *arguments = json.loads(line)
        print(json.dumps(verbs[verb](*arguments)), flush=True)
    app.end()


if __name__ == "__main__":
    main()
