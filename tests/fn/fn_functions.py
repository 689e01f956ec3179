"""The functions of examples/fn, each with the launcher that forks it, and the first container of one."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fn_agent import Cold, Container, FnAgent, Function, Place
from worlds import ROOT, Host, environment

_EXAMPLES = ROOT / "examples/fn"
WARM_BODY = '{"row": 1}'


@dataclass(frozen=True)
class Language:
    """How the function of one FDK is started."""

    name: str
    cold: tuple[str, ...]
    """As a function's image has it, without Mitosis."""
    forked: tuple[str, ...]
    """The launcher, which prepares if it is told where to write the handle."""


def python(function: Path) -> Language:
    """Whose function is this file's `handler`."""
    fdk = Path(sys.executable).parent / "fdk"
    launcher = _EXAMPLES / "python/launch.py"
    return Language(
        "python",
        (sys.executable, str(fdk), str(function), "handler"),
        (sys.executable, str(launcher), str(function), "handler"),
    )


def node(function: Path) -> Language:
    """Whose function is this file."""
    # Not what PATH has on a sealed host: the same program for all.
    program = shutil.which("node")
    assert program is not None, "no node in PATH: run this by `make test-fn`"
    return Language(
        "node",
        (program, str(function)),
        (program, str(_EXAMPLES / "node/launch.js"), str(function)),
    )


LANGUAGES = (python(_EXAMPLES / "python/func.py"), node(_EXAMPLES / "node/func.js"))


@dataclass(frozen=True)
class Warm:
    """A function's first container, which has been prepared and then listens like any other."""

    agent: FnAgent
    container: Container
    handle: str


def started_cold(language: Language, env: dict[str, str]) -> Cold:
    """A container as it is without Mitosis; for `FnAgent`."""
    return Cold(list(language.cold), environment(**env))


@contextlib.contextmanager
def warmed(
    language: Language, host: Host, iofs: Place | None = None, **more: str
) -> Iterator[Warm]:
    """The first container of a function, on `host`, and what its children are made from.

    `more` goes to its environment.
    """
    # Not below /tmp: a sealed host has one of its own.
    with tempfile.TemporaryDirectory(prefix="fn-handle-", dir="/var/tmp") as directory:
        handle = Path(directory) / "handle"
        told = {"MITOSIS_FN_HANDLE": str(handle), "MITOSIS_FN_WARM_BODY": WARM_BODY, **more}

        def launch(env: dict[str, str]) -> Cold:
            return Cold(host.command(*language.forked, **env, **told), environment())

        function = Function(config={"GREETING": "from the first"})
        with FnAgent(function, launch, iofs=iofs) as agent:
            container = agent.launch()
            # It is there: a container is ready once it listens, and this one has written it before.
            assert handle.stat().st_mode & 0o777 == 0o600, "others could read the handle"
            yield Warm(agent, container, handle.read_text())


def wait_for(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {limit_s} s"
        time.sleep(0.01)
