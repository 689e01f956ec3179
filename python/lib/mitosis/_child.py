"""A child, as the process that started it sees it."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal as signals
import time
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from . import _native
from ._errors import ArgumentError, HostLost, PageLost

# poll(2) takes an int of milliseconds.
_POLL_MAX_MS = 2**31 - 1
# A pipe that is writable takes so much without waiting (PIPE_BUF), and so much of it is read at once.
_WRITE_BYTES = select.PIPE_BUF
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class StartReport:
    """How a resume went. Times are CLOCK_REALTIME of the child's host, in ns."""

    host: str
    """The host that runs the children."""
    requested_at_ns: int
    """When the request reached that host's agent."""
    started_at_ns: int
    """When the last child was cloned."""
    descriptor_bytes: int
    """Bytes of the descriptor that was fetched; 0 if it was there already."""
    pages_total: int
    """Pages of the seed in all."""
    new_template: bool
    """Whether this resume made the host's template."""


class Child:
    """A process resumed from a seed, on whatever host.

    It has the caller's standard output and error (relayed from a far host), and /dev/null or what
    the caller had as its standard input, unless `resume` was told otherwise. As a context manager it is
    waited for at the end, with its pipes closed before.
    """

    def __init__(
        self,
        native: _native.Child,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        self._native = native
        self.stdin: IO[bytes] | None = stdin
        """What writes to its standard input, if that is a pipe."""
        self.stdout: IO[bytes] | None = stdout
        """What reads its standard output, if that is a pipe: to the end when all processes that have it have ended."""
        self.stderr: IO[bytes] | None = stderr
        """As `stdout`, of its standard error."""
        self._read: dict[IO[bytes], list[bytes]] = {}
        self._unwritten: memoryview | None = None
        identity = native.identity()
        self.id: str = identity["id"]
        """Its name on its host, as `mitosis ls` prints it."""
        self.host: str = identity["host"]
        """The host that runs it."""
        self.pid: int = identity["pid"]
        """Its process id there."""
        self.report: StartReport = StartReport(**native.report())
        """How the resume that started it went."""
        self.returncode: int | None = None
        """None while no more is known, else the exit status, or the signal's number negated."""
        self._lost: PageLost | HostLost | None = None

    def poll(self) -> int | None:
        """Return `returncode`, brought up to date, without waiting.

        Raises:
            PageLost: it died of SIGBUS since a page could not be had; `returncode` is -SIGBUS.
            HostLost: the agent that watched over it is gone; `returncode` stays None.
        """
        if self._lost is not None:
            raise self._lost
        if self.returncode is None:
            end = self._native.end()
            if end is not None:
                self._ended(*end)
        return self.returncode

    def _ended(self, how: str, number: int, why: str) -> None:
        if how == "exited":
            self.returncode = number
        elif how == "signalled":
            self.returncode = -number
        elif how == "page_lost":
            self.returncode = -signals.SIGBUS
            self._lost = PageLost(why)
        else:
            self._lost = HostLost(why)
        if self._lost is not None:
            raise self._lost

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return `returncode`; `timeout` is in seconds.

        Raises:
            TimeoutError: it still runs.
            PageLost, HostLost: as `poll` does.
        """
        return self._wait_until(None if timeout is None else time.monotonic() + timeout, timeout)

    def _wait_until(self, deadline: float | None, timeout: float | None) -> int:
        poller: select.poll | None = None
        while (returncode := self.poll()) is None:
            left_ms: float | None = None
            if deadline is not None:
                left_ms = (deadline - time.monotonic()) * 1000
                if left_ms <= 0:
                    raise self._still_runs(timeout)
                left_ms = min(left_ms + 1, _POLL_MAX_MS)
            if poller is None:
                poller = select.poll()
                poller.register(self.fileno(), select.POLLIN)
            poller.poll(left_ms)
        return returncode

    def _still_runs(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(
            f"child {self.id} on {self.host} still runs after {timeout} s: wait again, or kill() it"
        )

    async def wait_async(self) -> int:
        """`wait` in an event loop of asyncio: other tasks run meanwhile. Any number of tasks may wait.

        Raises:
            PageLost, HostLost: as `poll` does.
        """
        from ._loop import readable  # who has no event loop does without

        while (returncode := self.poll()) is None:
            await readable(self.fileno())
        return returncode

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Write `input` to its pipe, read the others to their ends and `wait`; both are needed whole in memory.

        Returns what came from `stdout` and `stderr`; None for what is no pipe.

        Raises:
            TimeoutError: after `timeout` seconds. Nothing is lost: call it again, without `input`.
            PageLost, HostLost: as `poll` does.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.stdin is not None and not self.stdin.closed:
            if self._unwritten is not None and input:
                raise ArgumentError("its input was given before: call communicate again without")
            if self._unwritten is None:
                self._unwritten = memoryview(input or b"")
                with contextlib.suppress(BrokenPipeError):
                    self.stdin.flush()
        elif input:
            raise ArgumentError("its standard input is no pipe: give stdin=mitosis.PIPE to resume")
        with selectors.PollSelector() as selector:
            for file in (self.stdout, self.stderr):
                if file is not None and not file.closed:
                    self._read.setdefault(file, [])
                    selector.register(file, selectors.EVENT_READ)
            if self.stdin is not None and not self.stdin.closed:
                if self._unwritten:
                    selector.register(self.stdin, selectors.EVENT_WRITE)
                else:
                    self._close_stdin()
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise self._still_runs(timeout)
                for key, _ in selector.select(left):
                    if not self._moved(key.fileobj):  # type: ignore[arg-type]
                        selector.unregister(key.fileobj)
        self._wait_until(deadline, timeout)
        return self._all_of(self.stdout), self._all_of(self.stderr)

    def _moved(self, file: IO[bytes]) -> bool:
        """Read or write what can be without waiting; whether there is more."""
        if file is self.stdin:
            unwritten = self._unwritten or memoryview(b"")
            try:
                written = os.write(file.fileno(), unwritten[:_WRITE_BYTES])
            except BrokenPipeError:
                written = len(unwritten)  # nobody reads it
            self._unwritten = unwritten[written:]
            if not self._unwritten:
                self._close_stdin()
            return bool(self._unwritten)
        got = os.read(file.fileno(), _READ_BYTES)
        if got:
            self._read[file].append(got)
        else:
            file.close()
        return bool(got)

    def _close_stdin(self) -> None:
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()

    def _all_of(self, file: IO[bytes] | None) -> bytes | None:
        return None if file is None else b"".join(self._read.get(file, []))

    def kill(self, signal: int = signals.SIGKILL) -> None:
        """Send it a signal.

        Nothing happens to a child that is known to have ended, as with subprocess.

        Raises:
            ChildGone: it has ended, which was not known here.
            Unreachable: its host does not answer.
        """
        if self.returncode is None:
            self._native.kill(int(signal))

    def terminate(self) -> None:
        """Send it SIGTERM; see `kill`."""
        self.kill(signals.SIGTERM)

    def fileno(self) -> int:
        """A file descriptor that is readable once the child's end is known, for select and event loops.

        No pidfd, as the child may run on another host and is no child of this process's where it does not: waitid(2) and
        pidfd_send_signal(2) do not take it. It is the child's own: do not read or close it.

        With several children of one `resume` it may be so for a moment because another one has
        ended: ask `poll`.
        """
        return self._native.fileno()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in (self.stdout, self.stderr):
            if file is not None:
                file.close()
        self._close_stdin()
        self.wait()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"returncode {self.returncode}"
        return f"<mitosis.Child {self.id}: pid {self.pid} on {self.host}, {state}>"
