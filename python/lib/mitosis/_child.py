"""A child, as the process that started it sees it."""

from __future__ import annotations

import select
import signal as signals
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from . import _native
from ._errors import HostLost, PageLost

# poll(2) takes an int of milliseconds.
_POLL_MAX_MS = 2**31 - 1


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
    the caller had as its standard input. As a context manager it is waited for at the end.
    """

    def __init__(self, native: _native.Child) -> None:
        self._native = native
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
        deadline = None if timeout is None else time.monotonic() + timeout
        poller: select.poll | None = None
        while (returncode := self.poll()) is None:
            left_ms: float | None = None
            if deadline is not None:
                left_ms = (deadline - time.monotonic()) * 1000
                if left_ms <= 0:
                    raise TimeoutError(
                        f"child {self.id} on {self.host} still runs after {timeout} s: "
                        "wait again, or kill() it"
                    )
                left_ms = min(left_ms + 1, _POLL_MAX_MS)
            if poller is None:
                poller = select.poll()
                poller.register(self.fileno(), select.POLLIN)
            poller.poll(left_ms)
        return returncode

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
        """A file descriptor that is readable once the child has ended, for select and event loops.

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
        self.wait()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"returncode {self.returncode}"
        return f"<mitosis.Child {self.id}: pid {self.pid} on {self.host}, {state}>"


def children_of(started: Sequence[_native.Child]) -> list[Child]:
    """The Python side of what was started."""
    return [Child(native) for native in started]
