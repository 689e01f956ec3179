"""Agents, hosts and scripts. What CI has promised (root, FUSE, hosts) fails where it is not."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT_TIMEOUT_S = 60
AGENT_TIMEOUT_S = 15


def built(name: str, variable: str) -> Path:
    """A program of this workspace: what `variable` names, or the newest that cargo has built."""
    if named := os.environ.get(variable):
        return Path(named)
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    found = [target / profile / name for profile in ("release", "debug")]
    found = [path for path in found if path.is_file()]
    if not found:
        pytest.fail(f"no {name} in {target}: run 'cargo build --release', or set {variable}")
    return max(found, key=lambda path: path.stat().st_mtime)


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would lead to another agent."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MITOSIS_", "PYTHON"))
    }
    return kept | changes


def run(script: str, *, env: dict[str, str], argv: tuple[str, ...] = (), status: int = 0) -> str:
    """Run a Python script in a process of its own and return what it and its children printed."""
    command = [*argv, sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(
        command,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=SCRIPT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            try:
                out, err = process.communicate(timeout=AGENT_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:  # a child of its agent's holds the pipes
                out, err = error.stdout, error.stderr
            pytest.fail(f"no end after {SCRIPT_TIMEOUT_S} s\n--- stdout\n{out}\n--- stderr\n{err}")
    if process.returncode != status:
        pytest.fail(
            f"status {process.returncode}, not {status}\n--- stdout\n{out}\n--- stderr\n{err}"
        )
    return out


@dataclass
class Agent:
    """A running agent: how its programs find it."""

    socket: Path
    binary: Path

    def run(self, script: str, *, status: int = 0, **changes: str) -> str:
        """Run a script that talks to it."""
        env = environment(MITOSIS_AGENT=str(self.socket), **changes)
        return run(script, env=env, status=status)

    def tell(self, *verb: str) -> object:
        """What `mitosis VERB --json` prints."""
        command = [self.binary, "--json", "--socket", self.socket, *verb]
        said = subprocess.run(command, check=True, capture_output=True, timeout=AGENT_TIMEOUT_S)
        return json.loads(said.stdout)


@contextlib.contextmanager
def running(command: list[str | Path], log: Path, **options: object) -> Iterator[subprocess.Popen]:
    """An agent's process, from the line that says that it listens until it has ended."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, **options
        )
    with process:
        try:
            line = process.stdout.readline()
            if b"ready" not in line:
                process.wait(AGENT_TIMEOUT_S)
                pytest.fail(f"the agent did not start: {log.read_text()}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(AGENT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail(f"the agent did not end on SIGTERM: {log.read_text()}")


@pytest.fixture
def agent() -> Iterator[Agent]:
    """An agent of this test's own, without a remote listener."""
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    # Not tmp_path: the path of a unix socket is at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        socket = Path(directory) / "agent.sock"
        with running([binary, "agent", "--socket", socket], Path(directory) / "log"):
            yield Agent(socket, binary)


@dataclass
class Host:
    """A sealed host of `mitosis-hosts`."""

    name: str
    init_pid: int
    root: Path
    program: Path

    def command(self, *argv: str | Path, **env: str) -> list[str | Path]:
        """The command line that runs `argv` there."""
        variables = [part for item in env.items() for part in ("--env", "=".join(item))]
        return [self.program, "exec", "--pid", str(self.init_pid), *variables, "--", *argv]

    def run(self, script: str, *, status: int = 0, **env: str) -> str:
        """Run a Python script there."""
        argv = tuple(str(part) for part in self.command(**env))
        return run(script, env=environment(), argv=argv, status=status)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Host A with the file system of this machine, host B without Python; an agent on each."""
    if os.geteuid() != 0:
        pytest.fail("sealed hosts need root")
    program = built("mitosis-hosts", "MITOSIS_HOSTS_BIN")
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    up = subprocess.Popen(
        [program, "up", "--owner", str(os.getpid()), "--file", f"{binary}:/usr/bin/mitosis"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    secret, logs = secrets.token_bytes(32), Path(tempfile.mkdtemp(prefix="mitosis-test-"))
    with up, contextlib.ExitStack() as agents:
        agents.callback(shutil.rmtree, logs)
        agents.callback(up.stdin.close)
        line = up.stdout.readline()
        pair = []
        for record in json.loads(line)["hosts"]:
            host = Host(record["name"], record["init_pid"], Path(record["root"]), program)
            file = host.root / "run/mitosis-secret"
            file.touch(mode=0o600)
            file.write_bytes(secret)
            there = binary if host.name == "host-a" else "/usr/bin/mitosis"
            listen = ["--listen", "0.0.0.0", "--secret-file", "/run/mitosis-secret"]
            command = host.command(there, "agent", *listen)
            agents.enter_context(running(command, logs / host.name))
            pair.append(host)
        yield pair[0], pair[1]
