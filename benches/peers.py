"""The C programs that Mitosis is held against, compiled when they are wanted."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from world import END_LIMIT_S, TARGET, Host

_SOURCES = Path(__file__).with_name("peers")
_FLAGS = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]


def compiled(name: str, *sources: str, shared: bool = False, library: str | None = None) -> Path:
    """The program or library `name` made of `sources`, linked with `library`, which benches/setup.sh installs."""
    if library is not None:
        subprocess.run(["bash", _SOURCES.with_name("setup.sh"), library], check=True)
    built = (TARGET / "bench-peers").resolve() / name
    built.parent.mkdir(parents=True, exist_ok=True)
    kind = ["-shared", "-fPIC"] if shared else []
    files = [str(_SOURCES / source) for source in sources]
    links = [] if library is None else [f"-l{library}"]
    subprocess.run(["cc", *_FLAGS, *kind, *files, "-o", str(built), *links], check=True, timeout=60)
    return built


@contextlib.contextmanager
def running(
    host: Host, program: Path, *argv: str | int, cpu: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A program on a host, told line by line, ended with the block."""
    command = host.command(program, *argv, cpu=cpu)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def line_of(process: subprocess.Popen[bytes]) -> float:
    """The number, or whatever JSON, that the program prints next."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args} ended with {process.wait(END_LIMIT_S)}")
    value = json.loads(line)
    return float(value) if not isinstance(value, dict) else 0.0
