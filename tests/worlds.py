"""Agents and sealed hosts for the tests in Python below this directory (they need root and FUSE)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
AGENT_LIMIT_S = 15


def built(name: str) -> Path:
    """A program of this workspace, the newest; the steps of `make test` build them in release."""
    found = [TARGET / profile / name for profile in ("release", "debug")]
    found = [path for path in found if path.is_file()]
    if not found:
        raise FileNotFoundError(f"no {name} in {TARGET}: run this by its target of make")
    return max(found, key=lambda path: path.stat().st_mtime)


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, less what would lead to another agent."""
    left_out = ("MITOSIS_", "PYTHON", "FN_", "NODE_", "LD_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    return kept | changes


@dataclass(frozen=True)
class Host:
    """Where an agent runs: this machine, or a sealed host."""

    name: str
    socket: Path
    """The agent's, as programs there know it."""
    root: Path = Path("/")
    """Its file system, seen from here."""
    init_pid: int | None = None

    def command(self, *argv: str | Path, **env: str) -> list[str]:
        """The command line that runs `argv` there, with that agent."""
        env = {"MITOSIS_AGENT": str(self.socket), **env}
        if self.init_pid is None:
            return ["env", *(f"{k}={v}" for k, v in env.items()), *map(str, argv)]
        variables = [part for k, v in env.items() for part in ("--env", f"{k}={v}")]
        enter = [built("mitosis-hosts"), "exec", "--pid", self.init_pid]
        return [*map(str, enter), *variables, "--", *map(str, argv)]

    def mitosis(self, *verb: str | Path) -> Any:
        """What `mitosis VERB --json` prints there."""
        # Asked through the host's root: a socket is the same file from everywhere.
        socket = self.root / str(self.socket).lstrip("/")
        command = [built("mitosis"), "--json", "--socket", socket, *verb]
        said = subprocess.run(command, stdout=subprocess.PIPE, timeout=AGENT_LIMIT_S, check=True)
        return json.loads(said.stdout)


@contextlib.contextmanager
def this_host() -> Iterator[Host]:
    """An agent of the test's own on this machine."""
    # A short path: that of a unix socket is at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        socket = Path(directory) / "agent.sock"
        with _agent([built("mitosis"), "agent", "--socket", socket], Path(directory) / "log"):
            yield Host("here", socket)


@contextlib.contextmanager
def sealed_hosts(*files: str | Path) -> Iterator[tuple[Host, Host]]:
    """Host A with the file system of this machine, host B with the agent and `files` alone."""
    if os.geteuid() != 0:
        raise PermissionError("sealed hosts need root")
    carried = [part for file in (built("mitosis"), *files) for part in ("--file", file)]
    up = subprocess.Popen(
        [built("mitosis-hosts"), "up", "--owner", str(os.getpid()), *carried],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with up, contextlib.ExitStack() as stack:
        assert up.stdin is not None and up.stdout is not None
        stack.callback(up.stdin.close)
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mitosis-test-")))
        secret = secrets.token_bytes(32)
        hosts = []
        for record in json.loads(up.stdout.readline())["hosts"][:2]:
            root = Path(record["root"])
            host = Host(record["name"], Path("/run/mitosis.sock"), root, record["init_pid"])
            file = root / "run/mitosis-secret"
            file.touch(mode=0o600)
            file.write_bytes(secret)
            serve = ["--listen", "0.0.0.0", "--secret-file", "/run/mitosis-secret"]
            command = host.command(built("mitosis"), "agent", "--socket", host.socket, *serve)
            stack.enter_context(_agent(command, logs / host.name))
            hosts.append(host)
        yield hosts[0], hosts[1]


@contextlib.contextmanager
def _agent(command: Sequence[str | Path], log: Path) -> Iterator[None]:
    """An agent, from the line that says that it listens until it has ended."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(),
        )
    with process:
        assert process.stdout is not None
        try:
            if b"ready" not in process.stdout.readline():
                process.wait(AGENT_LIMIT_S)
                raise RuntimeError(f"the agent did not start: {log.read_text()}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(AGENT_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise RuntimeError(f"the agent did not end: {log.read_text()}") from None
