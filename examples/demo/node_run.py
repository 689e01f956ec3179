"""The demo of `make demo RUNTIME=node`: a warm web server on host A answers as a process of host B.

Runs under `mitosis-hosts up`, outside of the two hosts, as run.py does: starts an agent on each, then
node_story.py on A. Writes target/demo.json.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from run import AGENT_LIMIT_S, ROOT, STORY_LIMIT_S, Host, ended, present, stats

STORY = Path(__file__).with_name("node_story.py")


def tell(a: Host, b: Host) -> dict[str, Any]:
    """Runs node_story.py on A; what it said, and B's counters at the right moments."""
    story = subprocess.Popen(
        a.command(sys.executable, STORY), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    said: dict[str, Any] = {}
    before: dict[str, int] = {}
    signal.alarm(STORY_LIMIT_S)
    with ended(story, AGENT_LIMIT_S):
        assert story.stdout is not None
        for line in story.stdout:
            word, value = next(iter(json.loads(line).items()))
            if word == "counting":
                before = stats(b)
            elif word == "standing":
                now = stats(b)
                said["pages"] = {
                    kind: now[f"pages_{kind}"] - before[f"pages_{kind}"]
                    for kind in ("pulled", "pushed", "from_files")
                }
            else:
                said[word] = value
        status = story.wait(AGENT_LIMIT_S)
    signal.alarm(0)
    if status != 0:
        raise RuntimeError(f"the story on host A ended with {status}")
    return said


def figures(said: dict[str, Any], b: Host) -> dict[str, Any]:
    """What target/demo.json holds."""
    first, following = said["first"], said["next"]
    every = first + following

    def of(children: list[dict[str, Any]], what: str) -> list[float]:
        return [child[what] for child in children]

    samples = {
        "prepare": said["pauses_ms"],
        "first_child": of(first, "runs_ms"),
        "next_child": of(following, "runs_ms"),
        "first_answer_of_first": of(first, "answered_ms"),
        "first_answer_of_next": of(following, "answered_ms"),
        "cold_answer": of(said["cold"], "answered_ms"),
        "cold_first_request": of(said["cold"], "first_request_ms"),
        "child_first_request": of(following, "first_request_ms"),
        "child_second_request": of(following, "second_request_ms"),
    }
    medians = {f"{name}_ms": statistics.median(values) for name, values in samples.items()}
    same = all(child["etag"] == said["parent"]["etag"] for child in every)
    # Each child goes on from the parent's count: one more than when the seed was made.
    state = all(child["served"] > said["parent"]["served"] for child in every)
    return medians | {
        "runtime": "node",
        "node": said["parent"]["version"],
        "warm_request_ms": said["warm_ms"],
        "answers_ok": same and state,
        "host": b.name,
        "host_a": said["host"],
        "pid_a": said["parent"]["pid"],
        "pid": first[0]["pid"],
        "descriptor_bytes": first[0]["report"]["descriptor_bytes"],
        "pages_total": first[0]["report"]["pages_total"],
        "pages_at_first_javascript": said["pages"]["pulled"] + said["pages"]["pushed"],
        "pages_pulled_at_first_javascript": said["pages"]["pulled"],
        "pages_pushed_at_first_javascript": said["pages"]["pushed"],
        "clock_offset_s": b.clock_ahead_s(),
        "samples_ms": samples,
        "machine": {"kernel": platform.release(), "cpus": len(os.sched_getaffinity(0))},
    }


def table(found: dict[str, Any]) -> str:
    """What a person reads."""
    samples, machine = found["samples_ms"], found["machine"]

    def ms(name: str) -> str:
        values = samples[name]
        median = statistics.median(values)
        return f"{median:9.2f} ms   median of {len(values)}, {min(values):.2f}..{max(values):.2f}"

    moved = found["pages_at_first_javascript"]
    rows = [
        (f"Node {found['node']} on A", f"pid {found['pid_a']}, an http server with an index of its own"),
        ("its children", f"on {found['host']}, which has no node; pid {found['pid']} in namespaces of theirs"),
        ("what they answer", "the same pages, counted on" if found["answers_ok"] else "WRONG"),
        (),
        ("cold 'node app.js'", f"{ms('cold_answer')}   until its first answer"),
        ("first child on B", f"{ms('first_answer_of_first')}   until its first answer"),
        ("each further child", f"{ms('first_answer_of_next')}   until its first answer"),
        (),
        ("first child runs", f"{ms('first_child')}   from the request at B's agent"),
        ("each further child", f"{ms('next_child')}   from the request at B's agent"),
        ("A stands still", ms("prepare")),
        (),
        ("a request of the warm A", f"{found['warm_request_ms']:9.2f} ms   median"),
        ("a child's first request", ms("child_first_request")),
        ("a child's second request", ms("child_second_request")),
        ("cold node's first request", ms("cold_first_request")),
        (),
        ("descriptor", f"{found['descriptor_bytes']:9} bytes"),
        ("pages of the seed", f"{found['pages_total']:9}"),
        (
            "  moved at first JavaScript",
            f"{moved:9}   {found['pages_pushed_at_first_javascript']} pushed, "
            f"{found['pages_pulled_at_first_javascript']} pulled",
        ),
    ]
    lines = ["" if not row else f"{row[0]:27}{row[1]}" for row in rows]
    return "\n".join([*lines, "", f"kernel {machine['kernel']}, {machine['cpus']} CPUs"])


def main() -> None:
    """Tells the story; exits with 1 if it does not end well."""
    found = present(lambda a, b: figures(tell(a, b), b), table)
    if not found["answers_ok"]:
        raise SystemExit("demo: host B does not answer what host A does")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    os.chdir(ROOT)
    main()
