"""Each test twice: on this host, and from one sealed host to another (needs root)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from preloaded import Way, way
from worlds import Host, sealed_hosts, this_host


@pytest.fixture(scope="session", params=["here", "to-host-b"])
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    with contextlib.ExitStack() as stack:
        if request.param == "here":
            host = stack.enter_context(this_host())
            yield host, host
        else:
            yield stack.enter_context(sealed_hosts())


@pytest.fixture
def both(hosts: tuple[Host, Host]) -> Iterator[Way]:
    with way(*hosts) as both:
        yield both
