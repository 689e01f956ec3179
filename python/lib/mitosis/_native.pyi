"""The native half; what is not re-exported by `mitosis` may change at any time."""

from collections.abc import Callable, Sequence
from os import PathLike
from types import ModuleType
from typing import Any, Literal, NoReturn, final

__version__: str
SHARED_COPY_LIMIT_BYTES: int
"""Shared memory that `prepare` copies unless told otherwise, in bytes."""

@final
class Handle:
    """The right to resume a seed: `mitosis://HOST:PORT/SEED#KEY`.

    `str` and `repr` hide the key; `reveal` shows it. A pickle of it holds the key.

    Raises:
        ArgumentError: the text is no handle; the message says why and never repeats the key.
    """

    def __new__(cls, text: str) -> Handle: ...
    @property
    def agent(self) -> str | None:
        """ "HOST:PORT" of the agent that holds the seed; None is the agent of this host."""
    @property
    def seed(self) -> str:
        """The seed's id: 16 hex digits, no secret."""
    def reveal(self) -> str:
        """The whole text, with the key: for another process, never for a log."""
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Child:
    def identity(self) -> dict[str, Any]: ...
    def report(self) -> dict[str, Any]: ...
    def end(
        self,
    ) -> tuple[Literal["exited", "signalled", "page_lost", "host_lost"], int, str] | None: ...
    def kill(self, signal: int) -> None: ...
    def fileno(self) -> int: ...

@final
class Seed:
    """Empty until `prepare` has filled it."""

    def __new__(cls) -> Seed: ...
    @property
    def pid(self) -> int: ...
    @property
    def pause(self) -> tuple[int, int] | None: ...
    def handle(self) -> Handle: ...
    def drop(self, revoke: bool) -> bool: ...
    def discard(self) -> None: ...

@final
class Resumed:
    @property
    def seed(self) -> str: ...
    @property
    def child(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def rehearsal(self) -> bool: ...
    @property
    def clock_delta_ns(self) -> int: ...
    @property
    def environment(self) -> list[tuple[str, str | None]]: ...
    @property
    def lost(self) -> list[tuple[str, list[int], str]]: ...

def losses_refused_unless_told() -> list[str]: ...
def loss_kinds() -> list[str]:
    """Names of the kinds of what cannot cross."""

def generation() -> int:
    """Forks between this process and the first one: 0 in a process that no resume has made."""

def end_rehearsal() -> NoReturn:
    """In a rehearsal: end it where prepare() would return to user code."""

def reseed(modules: dict[str, ModuleType], all_threads: bool = False) -> None:
    """Give the generators of the loaded `modules` new state, by C functions alone; for a child."""

HOOK_LIMIT_S: float
STATUS_HALF_CHILD: int

@final
class Watch:
    def stop(self) -> None: ...

def watch_child(limit_s: float, text: str) -> Watch: ...
def watch_caller(limit_s: float, expired: Callable[[], float | None]) -> Watch: ...
def raise_in(thread: int, exception: type[BaseException] | None) -> None: ...
def release_signals() -> None:
    """In a child: let signals through that came before it was whole."""

def find_agent() -> str: ...
def check_host(host: str) -> None: ...
def ensure_agent(binary: str | PathLike[str] | None) -> str: ...
def is_of_prepare() -> bool:
    """In a child of any fork: whether a `prepare` of this module has made it. Once."""

def prepare(
    seed: Seed,
    agent: str | PathLike[str],
    modules: dict[str, ModuleType],
    *,
    shared_copy_limit: int,
    allow_visible_seed: bool,
    all_threads: bool,
    carry_files: bool,
    refuse: Sequence[str],
) -> Resumed | None: ...
@final
class Resuming:
    def fileno(self) -> int: ...
    def finish(self) -> list[Child]: ...
    def give_up(self) -> None: ...

def resume_start(
    agent: str | PathLike[str],
    handle: Handle,
    *,
    host: str | None,
    count: int,
    payload: bytes,
    environment: list[tuple[str, str | None]],
    seed_ends_with_children: bool,
    stdio: tuple[int, int, int] | None = ...,
    listen: list[str] = ...,
    clock: str = ...,
    cwd: str | None = ...,
    hostname: str | None = ...,
    cgroup: str | None = ...,
    namespaces: list[str] = ...,
    argv: list[str] = ...,
    id_map: list[str] = ...,
) -> Resuming: ...
def list_all(
    agent: str | PathLike[str],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]: ...
def stats(agent: str | PathLike[str]) -> dict[str, int]: ...
