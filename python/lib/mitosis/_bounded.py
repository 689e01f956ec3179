"""A call that is ended by an exception when its time is over."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from . import _native
from ._errors import HookTimeout

# After the exception was sent to a hook: when whoever waits is told that it does not help.
_GRACE_S = 5.0


def bounded(
    kind: str, name: str, timeout: float | None, function: Callable[[], object]
) -> None:
    """Call `function`; raise `HookTimeout` in it and here if it takes longer than `timeout`."""
    if timeout is None:
        function()
        return
    text = f"the {kind} hook {name} has not returned after {timeout:g} s"
    interruption = _Interruption(text)
    try:
        try:
            watch = _native.watch_caller(timeout, interruption.expire)
            try:
                function()
            finally:
                interruption.is_over = True
                watch.stop()
        finally:
            interruption.take_back()
    except HookTimeout as error:
        # Python raises a class in another thread, not an instance.
        error.args = error.args or (text,)
        raise
    except BaseException as error:
        if interruption.has_expired and isinstance(error, Exception):
            raise HookTimeout(text) from error
        raise
    if interruption.has_expired:
        raise HookTimeout(text)


class _Interruption:
    """What raises in the thread that made it.

    In the main thread it is a signal's handler that raises, as this ends sleeps and waits in system
    calls, too; Python allows handlers nowhere else.
    """

    def __init__(self, text: str) -> None:
        self.is_over = self.has_expired = False
        self._text = text
        self._thread = threading.get_ident()
        self._signal = _free_signal() if _is_main_thread() else None
        if self._signal is not None:
            signal.signal(self._signal, self._raise)

    def expire(self) -> float | None:
        """On the watchdog's thread: interrupt, and if that has been done, tell."""
        if self.is_over:
            return None
        if self.has_expired:
            print(f"mitosis: {self._text} and cannot be ended", file=sys.stderr, flush=True)
            return None
        self.has_expired = True
        if self._signal is None:
            _native.raise_in(self._thread, HookTimeout)
        else:
            signal.pthread_kill(self._thread, self._signal)
        return _GRACE_S

    def take_back(self) -> None:
        """On the thread itself, when nothing can be sent to it any more."""
        if self._signal is None:
            _native.raise_in(self._thread, None)
            return
        # Lets the handler run that a signal has come for; without one it would be an error.
        for _ in range(2):
            pass
        # Ignored first, which drops one that is pending: by default it would end the process.
        signal.signal(self._signal, signal.SIG_IGN)
        signal.signal(self._signal, signal.SIG_DFL)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if not self.is_over:
            raise HookTimeout(self._text)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _free_signal() -> int | None:
    """One that nobody uses: not Python, not C code with a handler of its own, which Python does not know, and not blocked."""
    taken = _signals_taken()
    for number in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
        if not taken >> (number - 1) & 1 and signal.getsignal(number) is signal.SIG_DFL:
            return number
    return None


def _signals_taken() -> int:
    """Bits of signals that are caught, ignored or blocked (proc(5)); all of them where /proc does not tell."""
    taken = 0
    try:
        with open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(("SigCgt:", "SigIgn:", "SigBlk:")):
                    taken |= int(line.split()[1], 16)
    except OSError:
        return ~0
    return taken
