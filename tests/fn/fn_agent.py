"""A stand-in for the Fn agent, which runs functions as containers and sends them calls.

It keeps what fnproject/fn promises a container (docs/fn/develop/fn-format.md; api/agent/agent.go), and
demands what that demands of one:

    launch   environment with FN_LISTENER=unix:DIR/lsnr.sock, FN_FORMAT=http-stream and the function's own;
             DIR is watched from before, and the CREATE of lsnr.sock is the ready signal: a socket, or a
             relative symlink in the same directory to one. None within the start limit: the container ends
    call     POST /call over one connection, one call at a time, with Fn-Call-Id and Fn-Deadline, its body
             in chunks, however short; 200 is an answer, 502 the function's failure, 504 its timeout; after any other code, after a broken
             connection and after the deadline the container ends
    idle     frozen after 50 ms without a call, thawed for the next one, ended after 30 s
    end      in this order: no further calls; SIGKILL, without a thaw; the end waited for; DIR removed

What it leaves out: images, cgroups, resource queues, log framing. A container here is a process, and is
frozen by SIGSTOP.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import http.client
import os
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

LISTENER = "lsnr.sock"
# FN_HOT_START_TIMEOUT_MSECS, FN_FREEZE_IDLE_MSECS, a function's idle timeout and its call's, by default.
START_LIMIT_S = 5.0
FREEZE_IDLE_S = 0.05
IDLE_LIMIT_S = 30.0
CALL_LIMIT_S = 30.0
# The agent's transport closes a connection that has rested so long.
CONNECTION_IDLE_S = 1.0
# sockaddr_un.
PATH_BYTES_MAX = 107
# A process that has got SIGKILL ends within milliseconds, unless something is wrong with it.
END_LIMIT_S = 10.0
# Headers that are of one connection and not of the call (common.StripHopHeaders).
_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}

_IN_CREATE = 0x100
_EVENT = struct.Struct("iIII")


class FnError(Exception):
    """What the agent tells its caller instead of an answer."""


class InitFailed(FnError):
    """The container did not become ready, or not as it must."""


class InitTimeout(InitFailed):
    """It was not ready by the start limit."""


class FunctionFailed(FnError):
    """The function answered 502; the container goes on."""


class CallTimeout(FnError):
    """The deadline has passed, or the function answered 504."""


class ResponseBroken(FnError):
    """No response, or one with a status that is not 200, 502 or 504; the container has ended."""


class Process(Protocol):
    """What a driver has started."""

    @property
    def pid(self) -> int: ...
    def running(self) -> bool: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float) -> None: ...


@dataclass(frozen=True)
class Place:
    """A container's directory for its socket: as the agent knows it, and as the container does."""

    seen_by_agent: Path
    seen_by_container: Path


@dataclass(frozen=True)
class Function:
    """What is called: its names, and its configuration."""

    app: str = "app"
    name: str = "function"
    memory_mib: int = 128
    config: Mapping[str, str] = field(default_factory=dict)

    def environment(self, place: Place) -> dict[str, str]:
        """Of each of its containers."""
        return {
            **self.config,
            "FN_FN_ID": f"id-of-{self.name}",
            "FN_FN_NAME": self.name,
            "FN_APP_ID": f"id-of-{self.app}",
            "FN_APP_NAME": self.app,
            "FN_MEMORY": str(self.memory_mib),
            "FN_TYPE": "sync",
            "FN_FORMAT": "http-stream",
            "FN_LISTENER": f"unix:{place.seen_by_container / LISTENER}",
        }


# Starts one container of a function with an environment.
Launch = Callable[[dict[str, str]], Process]


@dataclass(frozen=True)
class Answer:
    """A function's response with status 200."""

    body: bytes
    headers: dict[str, str]


class Cold:
    """A container that is started by a command, as everywhere."""

    def __init__(self, command: list[str | Path], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> None:
        self._process.wait(timeout)


class Forked:
    """A container that is a child of a warm function's seed."""

    def __init__(self, handle: str, env: dict[str, str], host: str | None = None) -> None:
        import mitosis

        self._child = mitosis.resume(handle, host, env=env)

    @property
    def pid(self) -> int:
        return self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        import mitosis

        with contextlib.suppress(mitosis.ChildGone):
            self._child.kill(signal.SIGKILL)

    def signal(self, number: int) -> None:
        self._child.kill(number)

    def wait(self, timeout: float) -> None:
        self._child.wait(timeout)


class Ready:
    """Waits for a container's ready signal: CREATE of exactly `lsnr.sock`."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._directory = directory
        self._fd = libc.inotify_init1(os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, bytes(directory), _IN_CREATE) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))

    def close(self) -> None:
        """On a thread of its own, as the agent does: the kernel takes some 10 ms to end its last watch."""
        threading.Thread(target=os.close, args=(self._fd,)).start()

    def wait(self, running: Callable[[], bool], limit_s: float) -> None:
        """Return when the container is ready.

        Raises:
            InitTimeout: it is not by the limit.
            InitFailed: it has ended, or its socket is not as it must be.
        """
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            # An end shows by no event: it is looked for ten times a second.
            if not select.select([self._fd], [], [], min(left, 0.1))[0]:
                if not running():
                    raise InitFailed("the container has ended before it was ready")
                continue
            if LISTENER in self._created():
                check_listener(self._directory / LISTENER)
                return
        raise InitTimeout(f"no {LISTENER} after {limit_s} s")

    def _created(self) -> Iterator[str]:
        events = os.read(self._fd, 4096)
        at = 0
        while at < len(events):
            *_, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size
            yield events[at : at + length].rstrip(b"\0").decode()
            at += length


def check_listener(path: Path) -> None:
    """What the agent checks (checkSocketDestination), and that it may connect.

    Raises:
        InitFailed: it is no such socket.
    """
    try:
        if stat.S_ISLNK(path.lstat().st_mode):
            target = path.readlink()
            if target.parent != Path("."):
                raise InitFailed(f"{path} leads to {target}, which is not in its own directory")
        mode = path.stat().st_mode
    except OSError as error:
        raise InitFailed(f"{path} cannot be looked at: {error}") from error
    if not stat.S_ISSOCK(mode):
        raise InitFailed(f"{path} is no socket")
    # The agent is another user than the function.
    if mode & 0o666 != 0o666:
        raise InitFailed(f"{path} has mode {stat.S_IMODE(mode):o}, not 666")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class Container:
    """One container, from its launch to its end. One call at a time: the caller sees to it."""

    def __init__(self, function: Function, place: Place, launch: Launch) -> None:
        if len(bytes(place.seen_by_container / LISTENER)) > PATH_BYTES_MAX:
            raise ValueError(f"the path of the socket in {place} is longer than {PATH_BYTES_MAX}")
        self.place = place
        self.frozen = False
        self.ended = False
        self._connection: _Connection | None = None
        self._used_at = 0.0
        ready = Ready(place.seen_by_agent)
        try:
            self.process = launch(function.environment(place))
            try:
                ready.wait(self.process.running, START_LIMIT_S)
            except BaseException:
                self.end()
                raise
        finally:
            ready.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def call(
        self,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit_s: float = CALL_LIMIT_S,
    ) -> Answer:
        """One call; the container is ended by what the contract says it must not survive.

        Raises:
            FunctionFailed, CallTimeout, ResponseBroken: as their comments say.
        """
        assert not self.ended and not self.frozen, "no call for a container that is frozen or ended"
        deadline = time.monotonic() + limit_s
        try:
            response, answer = self._exchange(body, dict(headers or {}), limit_s)
        except TimeoutError:
            self.end()
            raise CallTimeout(f"no response by the deadline, {limit_s} s") from None
        except (OSError, http.client.HTTPException) as error:
            self.end()
            raise ResponseBroken(f"no response: {error!r}") from error
        if time.monotonic() > deadline:
            self.end()
            raise CallTimeout(f"the response came after the deadline, {limit_s} s")
        if response.status == http.HTTPStatus.BAD_GATEWAY:
            raise FunctionFailed(answer.body.decode(errors="replace"))
        if response.status == http.HTTPStatus.GATEWAY_TIMEOUT:
            raise CallTimeout("the function says that it ran out of time")
        if response.status != http.HTTPStatus.OK:
            self.end()
            raise ResponseBroken(f"invalid status code {response.status}")
        return answer

    def _exchange(
        self, body: bytes, headers: dict[str, str], limit_s: float
    ) -> tuple[http.client.HTTPResponse, Answer]:
        connection = self._connected()
        connection.sock.settimeout(limit_s)
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=limit_s)
        connection.putrequest("POST", "/call", skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        connection.putheader("Fn-Call-Id", uuid.uuid4().hex)
        connection.putheader("Fn-Deadline", until.strftime("%Y-%m-%dT%H:%M:%SZ"))
        # Never a Content-Length: the agent passes on a body whose length its HTTP library does not know.
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(body, encode_chunked=True)
        response = connection.getresponse()
        answer = Answer(
            response.read(),
            {k.lower(): v for k, v in response.getheaders() if k.lower() not in _HOP},
        )
        self._used_at = time.monotonic()
        return response, answer

    def _connected(self) -> _Connection:
        """The connection: at most one, and a new one if it has rested for too long."""
        rested = time.monotonic() - self._used_at
        if self._connection is not None and (
            rested > CONNECTION_IDLE_S or self._connection.sock is None
        ):
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = _Connection(self.place.seen_by_agent / LISTENER)
            self._connection.connect()
        return self._connection

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    def _signal(self, number: int) -> None:
        if isinstance(self.process, Forked):
            self.process.signal(number)
        else:
            os.kill(self.process.pid, number)

    def end(self) -> None:
        """Its end, in the agent's order; twice is once."""
        if self.ended:
            return
        self.ended = True
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(END_LIMIT_S)
        if self._connection is not None:
            self._connection.close()
        shutil.rmtree(self.place.seen_by_agent)


class FnAgent:
    """Calls of one function: takes a container that rests, or launches one."""

    def __init__(
        self,
        function: Function,
        launch: Launch,
        *,
        iofs: Place | None = None,
        freeze_idle_s: float = FREEZE_IDLE_S,
        idle_limit_s: float = IDLE_LIMIT_S,
    ) -> None:
        self.function = function
        self.containers: list[Container] = []
        self._launch = launch
        self._freeze_idle_s = freeze_idle_s
        self._idle_limit_s = idle_limit_s
        self._lock = threading.Lock()
        # Containers that rest, the last one used last, each with its timer.
        self._resting: list[tuple[Container, threading.Timer]] = []
        self._own = None if iofs else tempfile.mkdtemp(prefix="fn-")
        self._iofs = iofs or Place(Path(self._own), Path(self._own))

    def call(
        self,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit_s: float = CALL_LIMIT_S,
    ) -> Answer:
        """One call of the function.

        Raises:
            FnError: see its subclasses.
        """
        container = self.slot()
        try:
            return container.call(body, headers, limit_s)
        finally:
            if not container.ended:
                self._rest(container)

    def http(self, method: str, url: str, body: bytes = b"", **headers: str) -> Answer:
        """One call by an HTTP trigger."""
        wrapped = {f"Fn-Http-H-{k.replace('_', '-')}": v for k, v in headers.items()}
        intent = {
            "Fn-Intent": "httprequest",
            "Fn-Http-Method": method,
            "Fn-Http-Request-Url": url,
        }
        return self.call(body, wrapped | intent)

    def slot(self) -> Container:
        """A container for one call: thawed, and nobody else's."""
        with self._lock:
            resting = self._resting.pop() if self._resting else None
        if resting is None:
            return self.launch()
        container, timer = resting
        timer.cancel()
        if container.frozen:
            container.thaw()
        return container

    def launch(self) -> Container:
        """A new container, ready for its first call.

        Raises:
            InitFailed: it did not come to that.
        """
        name = uuid.uuid4().hex[:12]
        place = Place(self._iofs.seen_by_agent / name, self._iofs.seen_by_container / name)
        place.seen_by_agent.mkdir()
        container = Container(self.function, place, self._launch)
        self.containers.append(container)
        return container

    def _rest(self, container: Container) -> None:
        timer = threading.Timer(self._freeze_idle_s, self._freeze, (container,))
        timer.daemon = True
        with self._lock:
            self._resting.append((container, timer))
            timer.start()

    def _freeze(self, container: Container) -> None:
        # Under the lock: who takes the container must find it frozen, or not yet.
        with self._lock:
            at = next((i for i, (c, _) in enumerate(self._resting) if c is container), None)
            if at is None:
                return
            container.freeze()
            left = max(0.0, self._idle_limit_s - self._freeze_idle_s)
            timer = threading.Timer(left, self._retire, (container,))
            timer.daemon = True
            self._resting[at] = (container, timer)
            timer.start()

    def _retire(self, container: Container) -> None:
        with self._lock:
            left = [(c, timer) for c, timer in self._resting if c is not container]
            retired, self._resting = len(left) < len(self._resting), left
        if retired:
            container.end()

    def close(self) -> None:
        """The end of all containers."""
        with self._lock:
            for _, timer in self._resting:
                timer.cancel()
            self._resting = []
        for container in self.containers:
            container.end()
        if self._own:
            shutil.rmtree(self._own)

    def __enter__(self) -> FnAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
