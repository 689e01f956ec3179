"""What children have as standard input, output and error."""

from __future__ import annotations

import contextlib
import os
from typing import IO, Any, Union

from ._errors import ArgumentError

# As in subprocess, whose own may be given.
PIPE = -1
STDOUT = -2
DEVNULL = -3

Stream = Union[None, int, IO[Any]]


class Stdio:
    """Descriptors for the children of one resume, and our ends of their pipes."""

    def __init__(self, streams: tuple[Stream, Stream, Stream], host: str | None, n: int) -> None:
        self.theirs: tuple[int, int, int] | None = None
        self.ours: list[IO[bytes] | None] = [None, None, None]
        self._opened: list[int] = []
        if streams == (None, None, None):
            return
        for stream, name in zip(streams, ("stdin", "stdout", "stderr"), strict=True):
            _check(stream, name, host, n)
        try:
            stdin, stdout = self._number(0, streams[0]), self._number(1, streams[1])
            stderr = stdout if streams[2] == STDOUT else self._number(2, streams[2])
        except BaseException:
            self.close_theirs()
            self.close_ours()
            raise
        self.theirs = (stdin, stdout, stderr)

    def _number(self, index: int, stream: Stream) -> int:
        if stream is None:
            try:
                os.fstat(index)
            except OSError:
                stream = DEVNULL
            else:
                return index
        if stream == PIPE:
            reading, writing = os.pipe()
            ours, theirs = (writing, reading) if index == 0 else (reading, writing)
            self._opened.append(theirs)
            self.ours[index] = os.fdopen(ours, "wb" if index == 0 else "rb")
            return theirs
        if stream == DEVNULL:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._opened.append(null)
            return null
        return stream if isinstance(stream, int) else stream.fileno()

    def close_theirs(self) -> None:
        """Once the agent has them: what reads to the end would wait for us."""
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened = []

    def close_ours(self) -> None:
        """Where there is no child."""
        for file in self.ours:
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()


def _check(stream: object, name: str, host: str | None, n: int) -> None:
    if isinstance(stream, int) and not isinstance(stream, bool):
        lowest = STDOUT if name == "stderr" else PIPE
        if stream < 0 and stream not in (PIPE, DEVNULL, lowest):
            raise ArgumentError(f"{name} is {stream}: give a descriptor, an open file, PIPE or DEVNULL")
    elif stream is not None and not hasattr(stream, "fileno"):
        raise TypeError(f"{name} is {stream!r}: give a descriptor, an open file, PIPE or DEVNULL")
    if stream == PIPE and n != 1:
        raise ArgumentError(
            f"{name} cannot be a pipe of {n} children, which share it: resume each by itself, or give a file"
        )
    if name == "stdin" and host is not None and stream is not None and stream != DEVNULL:
        raise ArgumentError(
            "stdin is for children of this host (host=None): on another one they read /dev/null; give them a payload"
        )
