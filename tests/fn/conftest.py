"""Warm functions to fork from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from fn_agent import FnAgent, Forked, Function
from fn_functions import LANGUAGES, Language, Warm, warmed
from worlds import Host, this_host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with this_host() as host, pytest.MonkeyPatch.context() as patch:
        # Forked containers are started by this process: it asks that agent.
        patch.setenv("MITOSIS_AGENT", str(host.socket))
        yield host


@pytest.fixture(params=LANGUAGES, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    return request.param


@pytest.fixture
def warm(language: Language, host: Host) -> Iterator[Warm]:
    with warmed(language, host) as warm:
        yield warm


@pytest.fixture
def forked(warm: Warm) -> Iterator[FnAgent]:
    """The same function, each container of which is a child of the first one."""
    function = Function(config={"GREETING": "from a child"})
    with FnAgent(function, partial(Forked, warm.handle)) as agent:
        yield agent
