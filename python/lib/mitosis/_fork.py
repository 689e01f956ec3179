"""fork and prepare: a process on both sides of a fork."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Literal

from . import _agent, _hooks, _native, _unique
from ._child import Child
from ._errors import ArgumentError, Error, NotForkable
from ._native import Handle
from ._resume import Start, flush
from ._stdio import Stream

# Frames above prepare() that a rehearsal looks at: what a child needs at once when it returns.
_FRAMES_REHEARSED = 4


@dataclass(frozen=True, slots=True)
class Lost:
    """What the process had open and a child has not; see `Resumed.lost`."""

    kind: str
    """As in `prepare`'s `losses`: "connections", "pipes" ..."""
    fds: tuple[int, ...]
    """The numbers that led to it: closed or hung up now, or a file without its lock. None of memory."""
    was: str
    """What it was: the address of a peer, a path."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What `prepare` returns in each child. As a context manager it does nothing."""

    seed: str
    """The id of the seed that it was resumed from."""
    child: str
    """Its own id, as `Child.id` in the process that started it."""
    index: int
    """Which of the children of one `resume` it is, from 0."""
    generation: int
    """Forks between it and the first process."""
    payload: bytes
    """What `resume` was given."""
    lost: tuple[Lost, ...] = ()
    """What could not cross, where files are carried: for a hook of `after_resume` that makes it again."""
    clock_delta_ns: int = 0
    """What `time.monotonic_ns()` has jumped by: 0 in a child that has its parent's clock, as ever where its host has
    time namespaces for it. Otherwise moments of that clock that were noted before are to be moved by it."""

    def __enter__(self) -> Resumed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class Seed:
    """What `prepare` returns in the process that called it: a frozen copy of that process.

    It lives until `drop`, or until its agent is shut down; as a context manager it is dropped at the end.
    """

    def __init__(self, native: _native.Seed) -> None:
        self._native = native
        self._handle: Handle | None = None

    @property
    def pid(self) -> int:
        """The process id of the frozen copy."""
        return self._native.pid

    @property
    def pause(self) -> tuple[int, int] | None:
        """Nanoseconds that the other threads stood still for it, and of these until the last one stood.

        None if it is of the caller's thread alone.
        """
        return self._native.pause

    @property
    def handle(self) -> Handle:
        """The handle to resume it with; waits until the agent has published the seed.

        Raises:
            NotForkable: the process cannot be a seed; the text names what is in the way.
            SeedGone: it was dropped before.
            MissingError: the agent is gone; the next one may have the seed: ask again.
            Unreachable: the agent is silent, or ends just now.
        """
        if self._handle is None:
            self._handle = self._native.handle()
        return self._handle

    def drop(self, revoke: bool = False) -> None:
        """End the seed: no new children; its memory goes with the last one. Twice is once.

        With `revoke` its pages can be read no more from now on: a child that touches one that it
        has not got dies, and its `wait` raises `PageLost`.

        In a process that was forked off the one that prepared the seed this does nothing.

        Raises:
            MissingError: the agent is gone; the next one may have the seed: drop it again.
            Unreachable: the agent is silent, or ends just now: drop it again.
            SeedGone: it has ended.
        """
        self._native.drop(revoke)

    def __enter__(self) -> Seed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Its own failure would hide the one that ends the block.
        with contextlib.nullcontext() if error is None else contextlib.suppress(Error):
            self.drop()

    def __repr__(self) -> str:
        return f"<mitosis.Seed {self._handle or 'pid ' + str(self.pid)}>"


def fork(
    host: str | None = None,
    *,
    threads: Literal["caller", "all"] = "caller",
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child | None:
    """Fork this process onto `host` ("name" or "name:port"; None is this one). Returns twice.

    Returns a `Child` here, and None in the child, which goes on with all memory of this process and
    gets a page from here when it first touches it. As with os.fork, only the calling thread lives
    on in the child; unlike there, the child has no open files but standard input, output and error.
    Files and sockets of the parent are closed in it: using one is OSError EBADF, closing one is fine,
    and their numbers are no other file's before they have been closed.
    Buffers of sys.stdout and sys.stderr are flushed first, so that nothing is printed twice.

    In a running event loop of asyncio this is refused, as the child could not wait for anything: fork
    before asyncio.run(), or in a thread (asyncio.to_thread) whose function ends the child itself.

    With `threads="all"` every thread lives on in the child, and open files are carried where they can
    be: see `prepare`. `stdin`, `stdout` and `stderr` are as of `resume`.

    Where no agent runs, one is started for this process, and ends with it.

    Raises, in this process alone (there is no child then):
        ArgumentError: `host` names no host.
        NotForkable: the process cannot be a seed; the text names what is in the way.
        HostUnfit: that host cannot run it.
        Unreachable: that host does not answer.
        Error: any other failure; see its subclasses.

    >>> import mitosis
    >>> if (child := mitosis.fork()) is None:
    ...     raise SystemExit(7)
    >>> child.wait()
    7
    """
    if host is not None:
        _native.check_host(host)
    all_threads = _is_all(threads)
    _refuse_in_event_loop(all_threads)
    agent = _agent.address()
    forked = _prepare(
        agent, _native.SHARED_COPY_LIMIT_BYTES, allow_visible_seed=False, all_threads=all_threads
    )
    if isinstance(forked, Resumed):
        return None
    try:
        return _start(agent, forked.handle, host, stdin, stdout, stderr).finish()[0]
    except BaseException:
        forked._native.discard()
        raise


async def fork_async(
    host: str | None = None,
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child | None:
    """`fork` with `threads="all"` in a running event loop of asyncio, which goes on on both sides.

    All threads stand still for some milliseconds, as in `prepare`; while the child is started, other tasks run. In the
    child this returns None, and its other tasks go on from where they stood, as here.

    Raises, in this process alone: as `fork` does.
    """
    import asyncio  # who has no event loop does without

    if host is not None:
        _native.check_host(host)
    agent = _agent.address()
    forked = _prepare(
        agent, _native.SHARED_COPY_LIMIT_BYTES, allow_visible_seed=False, all_threads=True
    )
    if isinstance(forked, Resumed):
        return None
    try:
        handle = await asyncio.to_thread(lambda: forked.handle)
        return (await _start(agent, handle, host, stdin, stdout, stderr).finish_async())[0]
    except BaseException:
        forked._native.discard()
        raise


def _start(
    agent: str, handle: Handle, host: str | None, stdin: Stream, stdout: Stream, stderr: Stream
) -> Start:
    # Pipes are made behind the fork: the child would have them, too.
    return Start(
        agent,
        handle,
        host,
        1,
        (stdin, stdout, stderr),
        payload=b"",
        environment=[],
        seed_ends_with_children=True,
    )


def prepare(
    *,
    shared_copy_limit: int = _native.SHARED_COPY_LIMIT_BYTES,
    allow_visible_seed: bool = False,
    threads: Literal["caller", "all"] = "caller",
    files: Literal["closed", "carried"] | None = None,
    losses: Literal["close", "refuse"] | Mapping[str, Literal["close", "refuse"]] | None = None,
) -> Seed | Resumed:
    """Freeze a copy of this process, from which children can be resumed on any host.

    Returns a `Seed` here, once, and a `Resumed` in each child. The caller stands still for about
    the time of os.fork; the copy shows neither in os.wait nor by SIGCHLD.

    A child's environment has MITOSIS_GENERATION and MITOSIS_CHILD_INDEX, and MITOSIS_PAYLOAD where the payload
    is text of at most 4 KiB: programs that it starts inherit them.

    Args:
        shared_copy_limit: bytes of shared anonymous memory that are copied while the caller stands
            still (each child gets its own); more is refused.
        allow_visible_seed: accept that the seed shows in os.wait where the kernel offers no way to
            hide it (gVisor, some seccomp filters).
        threads: which threads children have. "caller" is the one that calls, as after os.fork. With
            "all" each goes on where it stood: in a lock, a queue, a sleep, a call into C. Open files are
            carried where they can be (`mitosis inspect` tells of each), so that an event loop may be
            running. No handler of os.register_at_fork runs, since nothing is forked as far as the
            interpreter can see; hooks of mitosis run as ever, `after_resume` with all threads running.
            All threads of this process stand still for some milliseconds, in C code as well.
        files: what children have where this process has descriptors above 2. "closed": numbers that
            answer EBADF, unless `threads` is "all". "carried": the same files at the same numbers, where
            they can be made again; `mitosis inspect` tells of each what becomes of it.
        losses: what to do where carried files hold something that cannot cross. "close": children find it
            closed or hung up, and listed in `Resumed.lost`. "refuse": there is no seed, and `Seed.handle`
            raises NotForkable with the descriptor, what it is and who holds the other end. A mapping
            says it for each kind; those that it does not name are closed, but for "io_uring", which is
            refused where nothing is said of it. The kinds: "connections",
            "pipes", "processes" (pidfds), "devices", "unnamed" (deleted files above 256 KiB), "locks",
            "watches" (of inotify), "terminals", "shared_memory" (that another living process maps),
            "shared_files" (mapped to be written, where the child's host has not the same: there
            `resume` fails, and the child has a copy otherwise), "io_uring", "scheduling" (other threads of
            SCHED_DEADLINE, which are of the ordinary class in children; a cookie of PR_SCHED_CORE, which they
            have not).

    Raises, in this process alone:
        NotForkable: shared memory is above the limit, the seed could not be hidden, an event loop of
            asyncio is running in this thread (see `fork`), or a thread could not be stopped: the text
            names it and its system call.
        HookTimeout: a hook of `before_prepare` or `after_prepare` took too long.
        MissingError: there is no agent and none can be started.
        Error: any other failure. What the agent finds later is raised by `Seed.handle`.

    >>> import mitosis
    >>> with mitosis.prepare() as me:
    ...     if isinstance(me, mitosis.Resumed):
    ...         raise SystemExit(len(me.payload))
    ...     child = mitosis.resume(me.handle, payload=b"four")
    ...     child.wait()
    4
    """
    if not 0 <= shared_copy_limit < 2**64:
        raise ArgumentError(f"shared_copy_limit is {shared_copy_limit}: give bytes, 0 or more")
    all_threads = _is_all(threads)
    carries = _are_carried(files, all_threads)
    refuse = _refused(losses, carries)
    _refuse_in_event_loop(all_threads)
    return _prepare(
        _agent.address(), shared_copy_limit, allow_visible_seed, all_threads, carries, refuse
    )


def _is_all(threads: object) -> bool:
    if threads not in ("caller", "all"):
        raise ArgumentError(f"threads is {threads!r}: give 'caller' or 'all'")
    return threads == "all"


def _are_carried(files: object, all_threads: bool) -> bool:
    if files not in (None, "closed", "carried"):
        raise ArgumentError(f"files is {files!r}: give 'closed' or 'carried'")
    if files == "closed" and all_threads:
        raise ArgumentError("threads='all' carries files: threads may be waiting for them")
    return all_threads or files == "carried"


def _refused(losses: object, carries: bool) -> Sequence[str]:
    """The kinds of what cannot cross that are to be refused."""
    kinds = _native.loss_kinds()
    unless_told = _native.losses_refused_unless_told()
    if losses is None:
        return unless_told
    wanted = losses if isinstance(losses, Mapping) else dict.fromkeys(kinds, losses)
    for kind, how in wanted.items():
        if kind not in kinds:
            raise ArgumentError(f"losses names {kind!r}: the kinds are {', '.join(kinds)}")
        if how not in ("close", "refuse"):
            raise ArgumentError(f"losses has {how!r}: give 'close' or 'refuse'")
    refused = [kind for kind, how in wanted.items() if how == "refuse"]
    if refused and not carries:
        raise ArgumentError("losses can be refused of carried files alone: files='carried'")
    return refused + [kind for kind in unless_told if kind not in wanted]


def _refuse_in_event_loop(all_threads: bool) -> None:
    if all_threads:
        return
    events = sys.modules.get("asyncio.events")
    if events is not None and events._get_running_loop() is not None:
        raise NotForkable(
            "an event loop of asyncio is running in this thread, and a child has none of the descriptors "
            "that it waits by: fork before asyncio.run(), or in a thread (asyncio.to_thread) whose "
            "function ends the child itself (os._exit), or keep its threads and files: threads='all'"
        )


def _prepare(
    agent: str,
    shared_copy_limit: int,
    allow_visible_seed: bool,
    all_threads: bool,
    carry_files: bool = False,
    refuse: Sequence[str] = (),
) -> Seed | Resumed:
    sys.audit("mitosis.prepare")
    # Behind a fork each page that is written is copied while the caller waits, and Python writes to each object that it
    # looks at: the way back is short, and what is returned there has been made before.
    seed = Seed(_native.Seed())
    after_prepare = _hooks.registered_after_prepare()
    try:
        if not all_threads:
            _warn_of_threads()
        _hooks.run_before_prepare()
        flush()
        resumed = _native.prepare(
            seed._native,
            agent,
            sys.modules,
            shared_copy_limit=shared_copy_limit,
            allow_visible_seed=allow_visible_seed,
            all_threads=all_threads,
            carry_files=carry_files,
            refuse=refuse,
        )
    except BaseException:
        _hooks.run_after_prepare()
        raise
    if resumed is not None:
        return _wake(resumed, all_threads)
    if after_prepare:
        try:
            _hooks.run_after_prepare()
        except BaseException:
            seed._native.discard()
            raise
    return seed


def _wake(native: _native.Resumed, all_threads: bool) -> Resumed:
    """In a child: what is left to do before the caller of prepare() may see it."""
    try:
        if all_threads and not native.rehearsal:
            _unique.renew(all_threads)
        for name, value in native.environment:
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        resumed = Resumed(
            seed=native.seed,
            child=native.child,
            index=native.index,
            generation=native.generation,
            clock_delta_ns=native.clock_delta_ns,
            payload=native.payload,
            lost=tuple(Lost(kind, tuple(fds), was) for kind, fds, was in native.lost),
        )
        if native.rehearsal:
            _rehearse_return(sys._getframe(1))
            with contextlib.suppress(BaseException):
                _hooks.run_rehearse()
            _native.end_rehearsal()
    except BaseException as error:
        _unique.end_half_child(error)
    # What a signal handler raises from here on is raised in the child's own code, as anywhere.
    _native.release_signals()
    try:
        _hooks.run_after_resume(resumed)
    except Exception as error:
        _unique.end_half_child(error)
    return resumed


def _rehearse_return(frame: FrameType | None) -> None:
    """Touch what the caller's code stands on, so that real children find it pushed."""
    for _ in range(_FRAMES_REHEARSED):
        if frame is None:
            return
        code, names = frame.f_code, frame.f_globals
        hash(code.co_code)
        for name in code.co_names:
            names.get(name)
        frame = frame.f_back


def _warn_of_threads() -> None:
    if sys.version_info >= (3, 12) and threading.active_count() > 1:
        warnings.warn(
            "this process has several threads; a child has only the one that forks, and may wait "
            "for ever for a lock that another one holds",
            DeprecationWarning,
            stacklevel=4,
        )
