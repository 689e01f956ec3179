"""Programs under `mitosis run`, which know nothing of it: prepared from outside, and resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worlds import Host, built, environment

END_LIMIT_S = 30
ANSWER_LIMIT_S = 20
PREPARE_LIMIT_S = 20


@dataclass(frozen=True)
class Way:
    """Where a program runs, and where its children do: here both, or on two sealed hosts."""

    a: Host
    b: Host
    directory: Path
    """The same on both, as programs there know it; a host of its own each has it."""

    @property
    def on(self) -> list[str]:
        """`mitosis resume`'s option for it."""
        return [] if self.a is self.b else ["--on", self.b.name]

    def path(self, host: Host, name: str) -> Path:
        """A file of the directory, as it is known here."""
        return host.root / str(self.directory).lstrip("/") / name


@contextlib.contextmanager
def way(a: Host, b: Host) -> Iterator[Way]:
    """With a directory that both have."""
    below = "/run" if a.init_pid else "/tmp"
    with contextlib.ExitStack() as stack:
        first = a.root / below.lstrip("/")
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="m-", dir=first))
        directory = Path(below) / Path(made).name
        if b is not a:
            other = b.root / str(directory).lstrip("/")
            other.mkdir()
            stack.callback(lambda: subprocess.run(["rm", "-rf", other], check=True))
        yield Way(a, b, directory)


class Program:
    """A program under `mitosis run` on host A; what it prints is read line by line."""

    def __init__(self, way: Way, *argv: str | Path, cwd: str | Path = "/") -> None:
        # The shell becomes the program, which so has the id that it says. Without a moment that comes by itself,
        # it is prepared when this test wants it.
        script = 'cd "$1"; shift; echo $$; exec "$@"'
        shell = ["/bin/sh", "-c", script, "sh", cwd, *argv]
        command = [built("mitosis"), "run", "--when", "signal:USR2", "--", *shell]
        self._way = way
        self.process = subprocess.Popen(
            way.a.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
            start_new_session=True,
        )
        self.pid = int(self._out.readline())

    @property
    def _out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def line(self) -> str:
        """The next one that it prints."""
        return self._out.readline().strip()

    def prepare(self, *options: str) -> str:
        """The handle of a seed of it."""
        command = [built("mitosis"), "prepare", *options, str(self.pid)]
        said = subprocess.run(
            self._way.a.command(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=PREPARE_LIMIT_S,
            env=environment(),
            text=True,
        )
        if said.returncode:
            raise RuntimeError(f"mitosis prepare: {said.stderr}")
        return said.stdout.strip().splitlines()[-1]

    def inspect(self, handle: str) -> str:
        """What `mitosis inspect` says of a seed of it."""
        command = self._way.a.command(built("mitosis"), "inspect", handle)
        said = subprocess.run(
            command, stdout=subprocess.PIPE, timeout=ANSWER_LIMIT_S, text=True, check=True
        )
        return said.stdout

    def end(self) -> None:
        """SIGKILL, if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(END_LIMIT_S)
        self._out.close()


@contextlib.contextmanager
def program(way: Way, *argv: str | Path, cwd: str | Path = "/") -> Iterator[Program]:
    """A program, and its end."""
    running = Program(way, *argv, cwd=cwd)
    try:
        yield running
    finally:
        running.end()


class Child:
    """A child on host B, by `mitosis resume`."""

    def __init__(self, way: Way, handle: str, *options: str) -> None:
        command = [built("mitosis"), "resume", handle, *way.on, *options]
        self.process = subprocess.Popen(
            way.a.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def finish(self) -> tuple[int, str, str]:
        """Its status, output and errors, when it has ended by itself."""
        out, err = self.process.communicate(timeout=END_LIMIT_S)
        return self.process.returncode, out, err

    def end(self) -> str:
        """End it; what it wrote to its standard error."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.communicate(timeout=END_LIMIT_S)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise


@contextlib.contextmanager
def child(way: Way, handle: str, *options: str) -> Iterator[Child]:
    """A child, and its end."""
    running = Child(way, handle, *options)
    try:
        yield running
    finally:
        running.end()


def parent_and_children_say(both: Way, parent: Program, said: str) -> None:
    """Prepares it and starts two children; when the file `go` appears, all three say the same."""
    handle = parent.prepare()
    with child(both, handle) as first, child(both, handle) as second:
        for host in (both.a, both.b):
            both.path(host, "go").touch()
        assert parent.line() == said
        for one in (first, second):
            status, out, err = one.finish()
            assert (status, out) == (0, f"{said}\n"), err


class Line:
    """A connection to a server that answers lines by lines."""

    def __init__(self, path: Path, running: Child | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_LIMIT_S)
        connect(self._socket, str(path), running)
        self._file = self._socket.makefile("rw", newline="")

    def ask(self, line: str) -> str:
        """Its answer to a line."""
        self._file.write(f"{line}\r\n")
        self._file.flush()
        return self._file.readline().strip()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()


def connect(to: socket.socket, address: str | tuple[str, int], running: Child | None) -> None:
    """Connect, as soon as it listens; fails with what the child said if it ends instead."""
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while True:
        try:
            to.connect(address)
            return
        except OSError as error:
            if running is not None and running.process.poll() is not None:
                raise RuntimeError(f"the child has ended: {running.finish()}") from error
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
