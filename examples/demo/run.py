"""The demo of `make demo`: a warm CPython on host A goes on as a process of host B.

Runs under `mitosis-hosts up`, outside of the two hosts: starts an agent on each, then story.py on
A, and puts together what story.py, its children and B's agent tell. Writes target/demo.json, or the file
that MITOSIS_TEST_DEMO_JSON names.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
STORY = Path(__file__).with_name("story.py")
SECRET = "/run/mitosis-secret"
# Everything is over in seconds; a machine that is busy may take its time.
STORY_LIMIT_S = 120
AGENT_LIMIT_S = 15


@dataclass
class Host:
    """One of the sealed hosts."""

    name: str
    init_pid: int
    root: Path

    def command(self, *argv: str | Path) -> list[str]:
        """The command line that runs `argv` there."""
        program = os.environ["MITOSIS_HOSTS_BIN"]
        return [program, "exec", "--pid", str(self.init_pid), "--", *map(str, argv)]

    def clock_ahead_s(self) -> int:
        """How far its CLOCK_MONOTONIC is ahead of this machine's: time_namespaces(7)."""
        for line in Path(f"/proc/{self.init_pid}/timens_offsets").read_text().splitlines():
            clock, seconds, _ = line.split()
            if clock == "monotonic":
                return int(seconds)
        raise RuntimeError(f"{self.name} has no clock of its own")


def hosts() -> tuple[Host, Host]:
    """Host A and host B."""
    try:
        records = json.loads(os.environ["MITOSIS_HOSTS_JSON"])["hosts"]
    except KeyError:
        sys.exit("demo: no hosts are up; run 'make demo'")
    a, b = (Host(r["name"], r["init_pid"], Path(r["root"])) for r in records[:2])
    return a, b


def binary() -> Path:
    """The agent, built by the Makefile; it stands at the same path on B."""
    path = Path(os.environ.get("MITOSIS_AGENT_BIN", TARGET / "release" / "mitosis")).resolve()
    if not path.is_file():
        sys.exit(f"demo: no {path}; run 'make demo'")
    return path


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any], limit_s: float) -> Iterator[None]:
    """Ends `process` at the end of the block, whatever happens."""
    with process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def agent(host: Host, secret: bytes, logs: Path) -> Iterator[None]:
    """An agent on `host`, from the line that says that it listens."""
    file = host.root / SECRET.lstrip("/")
    file.touch(mode=0o600)
    file.write_bytes(secret)
    arguments = [binary(), "agent", "--listen", "0.0.0.0", "--secret-file", SECRET]
    log = logs / host.name
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            host.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    with ended(process, AGENT_LIMIT_S):
        assert process.stdout is not None
        if b"ready" not in process.stdout.readline():
            raise RuntimeError(f"the agent on {host.name} did not start")
        yield


def stats(host: Host) -> dict[str, int]:
    """The counters of the agent there."""
    command = host.command(binary(), "stats", "--json")
    said = subprocess.run(command, check=True, capture_output=True, timeout=AGENT_LIMIT_S)
    counters: dict[str, int] = json.loads(said.stdout)
    return counters


def tell(a: Host, b: Host) -> dict[str, Any]:
    """Runs story.py on A; what it and its children said, and B's counters at the right moment."""
    story = subprocess.Popen(
        a.command(sys.executable, STORY), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    said: dict[str, Any] = {"woke": {}, "requested": {}}
    before = stats(b)
    signal.alarm(STORY_LIMIT_S)
    with ended(story, AGENT_LIMIT_S):
        assert story.stdout is not None
        for line in story.stdout:
            word, value = next(iter(json.loads(line).items()))
            if word == "standing":  # the first child, for a second
                now = stats(b)
                said["pages"] = {
                    kind: now[f"pages_{kind}"] - before[f"pages_{kind}"]
                    for kind in ("pulled", "pushed", "from_files")
                }
            elif word in ("woke", "requested"):
                said[word][value["child"]] = value["ns"]
            else:
                said[word] = value
        status = story.wait(AGENT_LIMIT_S)
    signal.alarm(0)
    if status != 0:
        raise RuntimeError(f"the story on host A ended with {status}")
    return said


def figures(said: dict[str, Any], b: Host) -> dict[str, Any]:
    """What target/demo.json holds."""
    parent, child = said["parent"], said["child"]
    took_ms = {i: (woke - said["requested"][i]) / 1e6 for i, woke in said["woke"].items()}
    first_ms = [took_ms[i] for i in said["first"]]
    next_ms = [took_ms[i] for i in said["next"]]
    pulled, pushed = said["pages"]["pulled"], said["pages"]["pushed"]
    return {
        "prepare_pause_ms": statistics.median(parent["prepare_ms"]),
        "fork_same_process_ms": statistics.median(parent["fork_ms"]),
        "first_child_ms": statistics.median(first_ms),
        "next_child_ms": statistics.median(next_ms),
        "cold_start_ms": parent["cold_start_ms"],
        "descriptor_bytes": parent["descriptor_bytes"],
        "pages_total": parent["pages_total"],
        "pages_at_first_bytecode": pulled + pushed,
        "pages_pulled_at_first_bytecode": pulled,
        "pages_pushed_at_first_bytecode": pushed,
        "array_bytes": parent["array_bytes"],
        "array_sum_ok": child["sum"] == parent["sum"] and child["nonce"] == parent["nonce"],
        "array_sum_ms": child["sum_ms"],
        "host": child["host"],
        "pid": child["pid"],
        "pid_namespace": child["pid_namespace"],
        "host_a": parent["host"],
        "pid_a": parent["pid"],
        "pid_namespace_a": parent["pid_namespace"],
        "clock_offset_s": b.clock_ahead_s(),
        "child_clock_minus_parents_s": child["monotonic_s"] - parent["monotonic_s"],
        "samples_ms": {
            "prepare": parent["prepare_ms"],
            "fork": parent["fork_ms"],
            "first_child": first_ms,
            "next_child": next_ms,
        },
        "machine": {
            "kernel": platform.release(),
            "cpus": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        },
    }


def table(found: dict[str, Any]) -> str:
    """What a person reads."""
    samples = found["samples_ms"]

    def ms(key: str, of: str) -> str:
        values = samples[of]
        return (
            f"{found[key]:9.2f} ms   median of {len(values)}, {min(values):.2f}..{max(values):.2f}"
        )

    mb, page_kb = 1e6, 4
    moved = found["pages_at_first_bytecode"]
    days = found["clock_offset_s"] / 86400
    python, machine = found["machine"]["python"], found["machine"]
    rows = [
        (f"CPython {python} on A", f"pid {found['pid_a']} in {found['pid_namespace_a']}"),
        ("its state", f"numpy and an array of {found['array_bytes'] / mb:.0f} MB"),
        ("the child", f"pid {found['pid']} on {found['host']} in {found['pid_namespace']}"),
        (
            "clocks",
            f"CLOCK_MONOTONIC of B is {days:.1f} days ahead; the child's goes on as on A "
            f"({found['child_clock_minus_parents_s']:+.3f} s)",
        ),
        ("the array on B", "right" if found["array_sum_ok"] else "WRONG"),
        ("", f"every page, in a random order, in {found['array_sum_ms']:.0f} ms; nonce included"),
        (),
        (
            "cold start of the same",
            f"{found['cold_start_ms']:9.2f} ms   python, import numpy, the array",
        ),
        ("first child on B", ms("first_child_ms", "first_child")),
        ("each further child", ms("next_child_ms", "next_child")),
        ("A stands still, prepare()", ms("prepare_pause_ms", "prepare")),
        ("  for comparison os.fork()", ms("fork_same_process_ms", "fork")),
        (),
        ("descriptor", f"{found['descriptor_bytes']:9} bytes"),
        ("pages of the seed", f"{found['pages_total']:9}"),
        (
            "  moved at first bytecode",
            f"{moved:9}   {found['pages_pushed_at_first_bytecode']} pushed, "
            f"{found['pages_pulled_at_first_bytecode']} pulled: {moved * page_kb} KiB",
        ),
    ]
    lines = ["" if not row else f"{row[0]:27}{row[1]}" for row in rows]
    lines.append("")
    lines.append(
        f"kernel {machine['kernel']}, {machine['cpus']} CPUs; times from the request at B's agent"
    )
    return "\n".join(lines)


def present(
    story: Callable[[Host, Host], dict[str, Any]], table: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Has `story` told between both hosts, each with an agent; prints its `table` and writes the file.

    Exits with 1, and what the agents said, if the story does not end well.
    """
    a, b = hosts()
    secret = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="mitosis-demo-") as directory:
        logs = Path(directory)
        try:
            with agent(a, secret, logs), agent(b, secret, logs):
                found = story(a, b)
        except BaseException as error:
            for log in sorted(logs.iterdir()):
                if text := log.read_text(errors="replace").strip():
                    print(f"--- the agent on {log.name} said\n{text}", file=sys.stderr)
            print(f"demo: {error}", file=sys.stderr)
            raise SystemExit(1) from error
    out = Path(os.environ.get("MITOSIS_TEST_DEMO_JSON", TARGET / "demo.json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    print(f"written to {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out}")
    return found


def main() -> None:
    """Tells the story; exits with 1 if it does not end well."""
    found = present(lambda a, b: figures(tell(a, b), b), table)
    if not found["array_sum_ok"]:
        raise SystemExit("demo: the array on B is not the array of A")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    os.chdir(ROOT)
    main()
