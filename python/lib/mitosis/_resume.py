"""resume: children of a seed, wherever they run."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, overload

from . import _agent, _native
from ._child import Child
from ._errors import ArgumentError, Unreachable
from ._native import Handle
from ._stdio import Stdio, Stream

# As long as an agent may take for an answer (REPLY_DEADLINE in core/src/client/connection.rs).
_REPLY_S = 60.0


@overload
def resume(
    handle: Handle | str,
    host: str | None = None,
    n: Literal[1] = 1,
    payload: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    listen: Sequence[str | int] = (),
    clock: Literal["live", "frozen"] = "live",
    cwd: str | PathLike[str] | None = None,
    hostname: str | None = None,
    cgroup: str | PathLike[str] | None = None,
    namespaces: Mapping[str, str | PathLike[str]] | None = None,
    argv: Sequence[str] = (),
    id_map: Sequence[str] = (),
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child: ...
@overload
def resume(
    handle: Handle | str,
    host: str | None = None,
    n: int = 1,
    payload: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    listen: Sequence[str | int] = (),
    clock: Literal["live", "frozen"] = "live",
    cwd: str | PathLike[str] | None = None,
    hostname: str | None = None,
    cgroup: str | PathLike[str] | None = None,
    namespaces: Mapping[str, str | PathLike[str]] | None = None,
    argv: Sequence[str] = (),
    id_map: Sequence[str] = (),
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child | list[Child]: ...
def resume(
    handle: Handle | str,
    host: str | None = None,
    n: int = 1,
    payload: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    listen: Sequence[str | int] = (),
    clock: Literal["live", "frozen"] = "live",
    cwd: str | PathLike[str] | None = None,
    hostname: str | None = None,
    cgroup: str | PathLike[str] | None = None,
    namespaces: Mapping[str, str | PathLike[str]] | None = None,
    argv: Sequence[str] = (),
    id_map: Sequence[str] = (),
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child | list[Child]:
    """Start `n` children of a seed on `host` ("name" or "name:port"; None is this one).

    Returns the `Child` for n = 1, else a list of n of them, in the order of `Resumed.index`. All of
    them are started, or none.

    Args:
        handle: `Seed.handle`, or its text as `Handle.reveal` gives it.
        host: where to start them; an agent of the same cluster secret runs there.
        n: how many, from 1 to 10,000.
        payload: bytes for `Resumed.payload`, with `env` at most 1 MiB.
        env: environment variables to set in the children; None as a value unsets.
        listen: where sockets of the seed's listen in the children: "all", a port, "PORT=PORT",
            "unix:/PATH" or "unix:/PATH=/PATH". They do before any child runs. A socket that is not named
            is there, and no connection comes to it. Children of one call share a port.
        clock: what time.monotonic() and timers go by in the children. "live": as in their parent now; what
            was to happen since `prepare` happens at once. "frozen": as at `prepare`, from where timers go on
            with what they had left.
        cwd: their working directory, an absolute path that is there on their host; without, the seed's
            where it is there.
        hostname: what they find as their host's name.
        cgroup: the control group that they enter, a directory of their host ("/sys/fs/cgroup/...").
        argv: what /proc/self/cmdline and ps tell of them, the program's name first; without, what they tell of
            the seed. `sys.argv` stays what it is: set it in a hook, if code is to see the same.
        id_map: they are in a user namespace of these ids, users and groups alike, with the rights there that
            the seed's process had: "INSIDE:OUTSIDE:COUNT", as ["0:100000:65536"]. Of a seed of one thread.
        namespaces: those of their host that they join, by kind ("cgroup", "ipc", "net", "uts", "mnt"):
            {"net": "/run/netns/blue"}.
        stdin, stdout, stderr: what the children have as 0, 1 and 2, as in subprocess: None for this process's own (and
            /dev/null where the children read on another host), a descriptor or an open file, DEVNULL, PIPE for
            a file `Child.stdin`, `Child.stdout` or `Child.stderr` here (of one child), and for stderr STDOUT.

    Raises:
        SeedGone, KeyRefused: the handle is of no seed, or of no seed that is still there.
        HostUnfit, Unreachable, SecretError: that host cannot run it, or cannot be asked to.
        ArgumentError: an argument cannot be right.
        TypeError: an argument is of another type.
        Error: any other failure; see its subclasses.
    """
    started = _start(
        handle,
        host,
        n,
        payload,
        env,
        listen,
        clock,
        cwd,
        hostname,
        cgroup,
        namespaces,
        argv,
        id_map,
        (stdin, stdout, stderr),
    ).finish()
    return started[0] if n == 1 else started


@overload
async def resume_async(
    handle: Handle | str,
    host: str | None = None,
    n: Literal[1] = 1,
    payload: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    listen: Sequence[str | int] = (),
    clock: Literal["live", "frozen"] = "live",
    cwd: str | PathLike[str] | None = None,
    hostname: str | None = None,
    cgroup: str | PathLike[str] | None = None,
    namespaces: Mapping[str, str | PathLike[str]] | None = None,
    argv: Sequence[str] = (),
    id_map: Sequence[str] = (),
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child: ...
@overload
async def resume_async(
    handle: Handle | str,
    host: str | None = None,
    n: int = 1,
    payload: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    listen: Sequence[str | int] = (),
    clock: Literal["live", "frozen"] = "live",
    cwd: str | PathLike[str] | None = None,
    hostname: str | None = None,
    cgroup: str | PathLike[str] | None = None,
    namespaces: Mapping[str, str | PathLike[str]] | None = None,
    argv: Sequence[str] = (),
    id_map: Sequence[str] = (),
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child | list[Child]: ...
async def resume_async(
    handle: Handle | str,
    host: str | None = None,
    n: int = 1,
    payload: bytes = b"",
    env: Mapping[str, str | None] | None = None,
    listen: Sequence[str | int] = (),
    clock: Literal["live", "frozen"] = "live",
    cwd: str | PathLike[str] | None = None,
    hostname: str | None = None,
    cgroup: str | PathLike[str] | None = None,
    namespaces: Mapping[str, str | PathLike[str]] | None = None,
    argv: Sequence[str] = (),
    id_map: Sequence[str] = (),
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Child | list[Child]:
    """`resume` in an event loop of asyncio: other tasks run while the children are started.

    Cancelled, it gives the resume up: what this host has not started by then is not started any more, and children that are go
    on. Of another host nobody knows: its agent may start them still.
    """
    started = await _start(
        handle,
        host,
        n,
        payload,
        env,
        listen,
        clock,
        cwd,
        hostname,
        cgroup,
        namespaces,
        argv,
        id_map,
        (stdin, stdout, stderr),
    ).finish_async()
    return started[0] if n == 1 else started


class Start:
    """Children that have been asked for."""

    def __init__(
        self,
        agent: str,
        handle: Handle,
        host: str | None,
        n: int,
        streams: tuple[Stream, Stream, Stream],
        **wanted: Any,
    ) -> None:
        self._stdio = Stdio(streams, host, n)
        try:
            self._native = _native.resume_start(
                agent, handle, host=host, count=n, stdio=self._stdio.theirs, **wanted
            )
        except BaseException:
            self._stdio.close_ours()
            raise
        finally:
            self._stdio.close_theirs()

    def finish(self) -> list[Child]:
        """Wait for them."""
        try:
            started = self._native.finish()
        except BaseException:
            self._stdio.close_ours()
            raise
        return [Child(native, *self._stdio.ours) for native in started]

    async def finish_async(self) -> list[Child]:
        """Wait for them in an event loop."""
        import asyncio

        from ._loop import readable

        try:
            await asyncio.wait_for(readable(self._native.fileno()), _REPLY_S)
        except asyncio.TimeoutError:
            self._native.give_up()
            self._stdio.close_ours()
            raise Unreachable(
                "the mitosis agent has not answered for 60 s while it starts children: see its log"
            ) from None
        except BaseException:
            self._native.give_up()
            self._stdio.close_ours()
            raise
        return self.finish()


def _start(
    handle: Handle | str,
    host: str | None,
    n: int,
    payload: bytes,
    env: Mapping[str, str | None] | None,
    listen: Sequence[str | int],
    clock: Literal["live", "frozen"],
    cwd: str | PathLike[str] | None,
    hostname: str | None,
    cgroup: str | PathLike[str] | None,
    namespaces: Mapping[str, str | PathLike[str]] | None,
    argv: Sequence[str],
    id_map: Sequence[str],
    streams: tuple[Stream, Stream, Stream],
) -> Start:
    if isinstance(handle, str):
        handle = Handle(handle)
    n = _whole_number(n)
    if n < 1 or n >= 2**32:
        raise ArgumentError(f"{n} children cannot be started: ask for 1 to 10,000")
    flush()
    return Start(
        _agent.address(),
        handle,
        host,
        n,
        streams,
        payload=_payload(payload),
        environment=_environment(env),
        seed_ends_with_children=False,
        listen=_listen(listen),
        clock=clock,
        cwd=None if cwd is None else os.fspath(cwd),
        hostname=hostname,
        cgroup=None if cgroup is None else os.fspath(cgroup),
        namespaces=[f"{kind}={os.fspath(path)}" for kind, path in (namespaces or {}).items()],
        argv=_texts("argv", argv, "the program's name first"),
        id_map=_texts("id_map", id_map, "'0:100000:65536'"),
    )


def _texts(name: str, texts: object, example: str) -> list[str]:
    if (
        isinstance(texts, str)
        or not isinstance(texts, Sequence)
        or not all(isinstance(text, str) for text in texts)
    ):
        raise ArgumentError(f"{name} is {texts!r}: give a list of texts, {example}")
    return list(texts)


def _whole_number(n: object) -> int:
    try:
        return operator.index(n)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"n is {n!r}: give a whole number of children") from None


def _payload(payload: object) -> bytes:
    try:
        return bytes(memoryview(payload))  # type: ignore[arg-type]
    except TypeError:
        kind = type(payload).__name__
        raise TypeError(f"payload is of type {kind}: give bytes (str.encode, pickle.dumps)") from None


def _listen(listen: Sequence[str | int]) -> list[str]:
    if isinstance(listen, str):
        raise TypeError(f"listen is {listen!r}: give a list of such texts")
    return [str(where) for where in listen]


def _environment(env: Mapping[str, str | None] | None) -> list[tuple[str, str | None]]:
    changes = list((env or {}).items())
    for name, value in changes:
        if not isinstance(name, str) or not isinstance(value, str | None):
            raise TypeError(f"env holds {name!r}: {value!r}: give str, or None to unset")
    return changes


def flush() -> None:
    """What is buffered here is printed here, and not twice."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105
            stream.flush()
        except (AttributeError, ValueError):  # closed, or none
            pass
