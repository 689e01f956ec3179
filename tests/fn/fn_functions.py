"""The functions of examples/fn, each with the launcher that forks it, and the first container of one."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
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


def _python() -> Language:
    fdk = Path(sys.executable).parent / "fdk"
    function = str(_EXAMPLES / "python/func.py")
    launcher = str(_EXAMPLES / "python/launch.py")
    return Language(
        "python",
        (sys.executable, str(fdk), function, "handler"),
        (sys.executable, launcher, function, "handler"),
    )


def _node() -> Language:
    # Not what PATH has on a sealed host: the same program for all.
    node = shutil.which("node")
    assert node is not None, "no node in PATH: run this by `make test-fn`"
    function = str(_EXAMPLES / "node/func.js")
    return Language(
        "node",
        (node, function),
        (node, str(_EXAMPLES / "node/launch.js"), function),
    )


LANGUAGES = (_python(), _node())


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
def warmed(language: Language, host: Host, iofs: Place | None = None) -> Iterator[Warm]:
    """The first container of a function, on `host`, and what its children are made from."""
    # Not below /tmp: a sealed host has one of its own.
    with tempfile.TemporaryDirectory(prefix="fn-handle-", dir="/var/tmp") as directory:
        handle = Path(directory) / "handle"
        extra = {"MITOSIS_FN_HANDLE": str(handle), "MITOSIS_FN_WARM_BODY": WARM_BODY}

        def launch(env: dict[str, str]) -> Cold:
            return Cold(host.command(*language.forked, **env, **extra), environment())

        function = Function(config={"GREETING": "from the first"})
        with FnAgent(function, launch, iofs=iofs) as agent:
            container = agent.launch()
            # It is there: a container is ready once it listens, and this one has written it before.
            assert handle.stat().st_mode & 0o777 == 0o600, "others could read the handle"
            yield Warm(agent, container, handle.read_text())
