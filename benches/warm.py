"""A warm process on host A (programs/warm.py) and the talk with it."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from world import END_LIMIT_S, World

_PROGRAM = Path(__file__).with_name("programs") / "warm.py"
# Everything it is asked for takes well below a second; a machine that others use, too, may take longer.
_ANSWER_LIMIT_S = 30.0


class Warm:
    """The other end of its standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._unread = b""
        self._of_children: list[dict[str, Any]] = []
        self._replies: list[Any] = []

    def ask(self, verb: str, *arguments: Any) -> Any:
        """The answer to one command."""
        self._stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")
        self._stdin.flush()
        return self.reply(f"{verb} {arguments}")

    def reply(self, to: str) -> Any:
        """The next answer."""
        self._read_until(lambda: bool(self._replies), to)
        return self._replies.pop(0)

    def of_children(self, count: int) -> list[dict[str, Any]]:
        """The next `count` lines that children have written."""
        self._read_until(lambda: len(self._of_children) >= count, f"what {count} children say")
        taken, self._of_children = self._of_children[:count], self._of_children[count:]
        return taken

    def resume(self, host: str | None, count: int, *payload: Any) -> dict[str, Any]:
        """Starts children that live as `payload` says."""
        return dict(self.ask("resume", host, count, list(payload)))

    def wait(self) -> None:
        """Waits for all children; each must have ended well."""
        statuses = self.ask("wait")
        if any(statuses):
            raise RuntimeError(f"children ended with {sorted(set(statuses))}")

    def _read_until(self, done: Any, what: str) -> None:
        limit = time.monotonic() + _ANSWER_LIMIT_S
        while not done():
            if not self._selector.select(max(0.0, limit - time.monotonic())):
                raise TimeoutError(f"the warm process did not answer in {_ANSWER_LIMIT_S} s: {what}")
            got = self._stdout.read1(1 << 16)  # type: ignore[attr-defined]
            if not got:
                status = self._process.wait(END_LIMIT_S)
                raise RuntimeError(f"the warm process ended with {status} at: {what}")
            *lines, self._unread = (self._unread + got).split(b"\n")
            for line in lines:
                value = json.loads(line)
                if "child" in value:
                    self._of_children.append(value)
                else:
                    self._replies.append(value["reply"])


@contextlib.contextmanager
def warm(world: World, megabytes: int, cpu: int | None) -> Iterator[Warm]:
    """A warm process with an array of this size, ended with the block."""
    command = world.a.command(world.python, _PROGRAM, megabytes, cpu=cpu, agent=True)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        try:
            talk = Warm(process)
            talk.reply("its start")
            yield talk
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(END_LIMIT_S)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(END_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
