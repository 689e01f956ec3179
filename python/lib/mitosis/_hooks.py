"""Functions that run around a prepare and in each child."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ._fork import Resumed

_Hook = TypeVar("_Hook", bound=Callable[[], object])
_ResumeHook = TypeVar("_ResumeHook", bound="Callable[[Resumed], object]")

_before_prepare: list[Callable[[], object]] = []
_after_prepare: list[Callable[[], object]] = []
_after_resume: list[Callable[[Resumed], object]] = []


def before_prepare(hook: _Hook) -> _Hook:
    """Register a function to run before each `prepare` and `fork`; usable as a decorator.

    The one that was registered last runs first. If it raises, nothing is prepared and the caller
    gets the exception. It is the place to close what must not be copied.
    """
    _before_prepare.append(hook)
    return hook


def after_prepare(hook: _Hook) -> _Hook:
    """Register a function to run in the caller after each `prepare` and `fork`, even a failed one.

    They run in the order in which they were registered, also when one of them raises; the first
    exception is raised to the caller then, and the seed is dropped.
    """
    _after_prepare.append(hook)
    return hook


def after_resume(hook: _ResumeHook) -> _ResumeHook:
    """Register a function to run in each child, with its `Resumed`, before user code goes on.

    They run in the order in which they were registered, after the generators of `random`, numpy
    and ssl have new state and after the handlers of os.register_at_fork. If one raises, the child
    prints the traceback and ends with status 70: no half child goes on.

    >>> import mitosis
    >>> @mitosis.after_resume
    ... def new_name(resumed):
    ...     print("child", resumed.index, "of generation", resumed.generation)
    """
    _after_resume.append(hook)
    return hook


def run_before_prepare() -> None:
    for hook in reversed(_before_prepare):
        hook()


def run_after_prepare() -> None:
    first: BaseException | None = None
    for hook in _after_prepare:
        try:
            hook()
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first


def run_after_resume(resumed: Resumed) -> None:
    for hook in _after_resume:
        hook(resumed)
