"""Functions that run around a prepare and in each child."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from . import _native
from ._bounded import bounded
from ._errors import ArgumentError

if TYPE_CHECKING:
    from ._fork import Resumed

_Function = TypeVar("_Function", bound=Callable[..., object])
_Hook = TypeVar("_Hook", bound=Callable[[], object])
_ResumeHook = TypeVar("_ResumeHook", bound="Callable[[Resumed], object]")


@dataclass(frozen=True)
class _Registered(Generic[_Function]):
    function: _Function
    timeout: float | None

    @property
    def name(self) -> str:
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"{getattr(self.function, '__module__', None) or '?'}.{name}"


_before_prepare: list[_Registered[Callable[[], object]]] = []
_rehearse: list[Callable[[], object]] = []
_after_prepare: list[_Registered[Callable[[], object]]] = []
_after_resume: list[_Registered[Callable[[Resumed], object]]] = []


@overload
def before_prepare(hook: _Hook) -> _Hook: ...
@overload
def before_prepare(*, timeout: float | None = ...) -> Callable[[_Hook], _Hook]: ...
def before_prepare(hook: Any = None, *, timeout: float | None = _native.HOOK_LIMIT_S) -> Any:
    """Register a function to run before each `prepare` and `fork`; usable as a decorator.

    The one that was registered last runs first. If it raises, nothing is prepared and the caller
    gets the exception. It is the place to close what must not be copied.

    One that has not returned after `timeout` seconds (None: never) gets `HookTimeout` raised in it, and
    so does the caller. In the main thread that ends whatever a signal handler can end; in another
    one the hook must run Python code for it. What can be ended by neither is named on sys.stderr, and nothing
    is prepared when it returns.
    """
    return _register(_before_prepare, hook, timeout)


@overload
def after_prepare(hook: _Hook) -> _Hook: ...
@overload
def after_prepare(*, timeout: float | None = ...) -> Callable[[_Hook], _Hook]: ...
def after_prepare(hook: Any = None, *, timeout: float | None = _native.HOOK_LIMIT_S) -> Any:
    """Register a function to run in the caller after each `prepare` and `fork`, even a failed one.

    They run in the order in which they were registered, also when one of them raises; the first
    exception is raised to the caller then, and the seed is dropped. `timeout` is as for `before_prepare`.
    """
    return _register(_after_prepare, hook, timeout)


@overload
def after_resume(hook: _ResumeHook) -> _ResumeHook: ...
@overload
def after_resume(*, timeout: float | None = ...) -> Callable[[_ResumeHook], _ResumeHook]: ...
def after_resume(hook: Any = None, *, timeout: float | None = _native.HOOK_LIMIT_S) -> Any:
    """Register a function to run in each child, with its `Resumed`, before user code goes on.

    They run in the order in which they were registered, after the generators of `random`, numpy
    and ssl have new state and after the handlers of os.register_at_fork. If one raises, the child
    prints the traceback and ends with status 70: no half child goes on. So does one that has not returned after
    `timeout` seconds (None: never), wherever it hangs.

    >>> import mitosis
    >>> @mitosis.after_resume(timeout=5)
    ... def new_name(resumed):
    ...     print("child", resumed.index, "of generation", resumed.generation)
    """
    return _register(_after_resume, hook, timeout)


def rehearse(hook: _Hook) -> _Hook:
    """Register a function to run in the *rehearsal*; usable as a decorator.

    The rehearsal is a child on this host that is thrown away before any other one is started: what memory it touches,
    children are given ahead. A server that serves itself a call there answers a child's first one sooner.
    It runs where `prepare` would return, `after_resume` hooks have not run, standard output and error are
    /dev/null, standard input is Mitosis's own. It has some 2 s for all hooks, other threads do not run in it, and it must change nothing
    outside of its process. What it raises is not told: all up to there was rehearsed.

    >>> import mitosis
    >>> @mitosis.rehearse
    ... def serve_one():
    ...     app.test_client().get("/")
    """
    _rehearse.append(hook)
    return hook


def _register(hooks: list[_Registered[Any]], hook: Any, timeout: float | None) -> Any:
    if timeout is not None and not 0 < timeout < math.inf:
        raise ArgumentError(f"timeout is {timeout!r}: give seconds, more than 0, or None for no limit")

    def register(hook: Any) -> Any:
        hooks.append(_Registered(hook, timeout))
        return hook

    return register if hook is None else register(hook)


def run_before_prepare() -> None:
    for hook in reversed(_before_prepare):
        bounded("before_prepare", hook.name, hook.timeout, hook.function)


def run_rehearse() -> None:
    for hook in _rehearse:
        hook()


def registered_after_prepare() -> Sequence[object]:
    """Those that `run_after_prepare` would run, whenever it is looked at."""
    return _after_prepare


def run_after_prepare() -> None:
    first: BaseException | None = None
    for hook in _after_prepare:
        try:
            bounded("after_prepare", hook.name, hook.timeout, hook.function)
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first


def run_after_resume(resumed: Resumed) -> None:
    for hook in _after_resume:
        if hook.timeout is None:
            hook.function(resumed)
            continue
        text = (
            f"mitosis: this child ends: its after_resume hook {hook.name} has not returned after "
            f"{hook.timeout:g} s\n"
        )
        watch = _native.watch_child(hook.timeout, text)
        try:
            hook.function(resumed)
        finally:
            watch.stop()
