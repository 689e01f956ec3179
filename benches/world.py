"""Two sealed hosts with an agent on each."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import mitosis

_ROOT = Path(__file__).resolve().parents[1]
TARGET = _ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
END_LIMIT_S = 15.0
# Of the programs that are run; a smoke run has those that `cargo test` has built.
profile = "release"
# For an image to go after its seed: the lease's end has to reach host B.
_GONE_LIMIT_S = 10.0
_SECRET = "run/mitosis-bench-secret"
_SOCKET = "run/mitosis-bench.sock"


@dataclass(frozen=True)
class Host:
    """One of the two."""

    name: str
    init_pid: int
    address: str
    root: Path

    def command(
        self, *argv: str | Path | int, cpu: int | None = None, agent: bool = False
    ) -> list[str]:
        """The command line that runs `argv` there, on `cpu` alone; with `agent` it finds the one there."""
        pins = [] if cpu is None else ["--cpu", str(cpu)]
        env = ["--env", f"MITOSIS_AGENT=/{_SOCKET}"] if agent else []
        enter = [str(built("mitosis-hosts")), "exec", "--pid", str(self.init_pid), *pins, *env]
        return [*enter, "--", *map(str, argv)]

    def run_json(self, *argv: str | Path | int, cpu: int | None = None) -> dict[str, Any]:
        """What a program there prints."""
        command = self.command(*argv, cpu=cpu)
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=30, check=True)
        return dict(json.loads(done.stdout))

    def stats(self) -> dict[str, int]:
        """The counters of its agent."""
        # Asked from here through the host's root: no process is started beside what is measured.
        os.environ["MITOSIS_AGENT"] = str(self.root / _SOCKET)
        return mitosis.stats()

    def children(self) -> int:
        """Children that run there."""
        os.environ["MITOSIS_AGENT"] = str(self.root / _SOCKET)
        return len(mitosis.list().children)


@dataclass(frozen=True)
class World:
    """The hosts."""

    a: Host
    b: Host
    python: Path

    def wait_for_no_image(self) -> None:
        """Until host B holds nothing of any seed."""
        limit = time.monotonic() + _GONE_LIMIT_S
        while self.b.stats()["images"]:
            if time.monotonic() > limit:
                raise TimeoutError(f"host B still holds an image {_GONE_LIMIT_S} s after the drop")
            time.sleep(0.01)


def built(name: str) -> Path:
    """A program of this workspace."""
    path = TARGET.resolve() / profile / name
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: run 'make bench' or 'make test-bench', which build it")
    return path


@contextlib.contextmanager
def world(
    *, pinned: bool, files: tuple[Path, ...] = (), before_b: Callable[[], None] | None = None
) -> Iterator[World]:
    """Hosts and agents, gone at the end, also if this process is killed.

    `before_b` is called in the process that becomes host B's agent.
    """
    carried = [part for path in (built("mitosis"), *files) for part in ("--file", str(path))]
    up = subprocess.Popen(
        [built("mitosis-hosts"), "up", "--owner", str(os.getpid()), *carried],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with up, contextlib.ExitStack() as stack:
        assert up.stdin is not None and up.stdout is not None
        stack.callback(up.stdin.close)
        records = json.loads(up.stdout.readline())["hosts"]
        a, b = (
            Host(r["name"], r["init_pid"], r["address"], Path(r["root"])) for r in records[:2]
        )
        secret = secrets.token_bytes(32)
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mitosis-bench-")))
        for host, cpu, before in ((a, machine.CPU_A, None), (b, machine.CPU_B, before_b)):
            file = host.root / _SECRET
            file.touch(mode=0o600)
            file.write_bytes(secret)
            stack.callback(file.unlink, missing_ok=True)
            log = logs / host.name
            stack.enter_context(_agent(host, cpu if pinned else None, log, before))
        yield World(a, b, Path(sys.executable))


@contextlib.contextmanager
def _agent(
    host: Host, cpu: int | None, log: Path, before: Callable[[], None] | None
) -> Iterator[None]:
    """An agent, from the line that says that it listens until it has ended."""
    (host.root / _SOCKET).unlink(missing_ok=True)
    pager = [] if cpu is None else ["--pager-cpus", cpu]
    serve = ["--listen", "0.0.0.0", "--secret-file", f"/{_SECRET}", "--socket", f"/{_SOCKET}"]
    command = host.command(built("mitosis"), "agent", *serve, *pager, cpu=cpu)
    # MITOSIS_LOG=info make bench ONLY=... tells where the time of a start goes.
    level = os.environ.get("MITOSIS_LOG")
    if level is not None:
        command[command.index("--pid") : command.index("--pid")] = ["--env", f"MITOSIS_LOG={level}"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            preexec_fn=before,
        )
    with process:
        try:
            assert process.stdout is not None
            if b"ready" not in process.stdout.readline():
                raise RuntimeError(f"no agent on {host.name}: {log.read_text(errors='replace')}")
            yield
            if level is not None:
                sys.stderr.write(log.read_text(errors="replace"))
        except BaseException:
            sys.stderr.write(f"{host.name}'s agent said:\n{log.read_text(errors='replace')}\n")
            raise
        finally:
            process.terminate()
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
