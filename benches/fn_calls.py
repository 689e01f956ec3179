"""How long the first call of a new container of a function takes: forked from a warm one, and started cold."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from unittest import mock

from measurement import Bar, Measurement

_TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path += [str(_TESTS), str(_TESTS / "fn")]

from fn_agent import FnAgent, Forked, Function, Launch  # noqa: E402
from fn_functions import LANGUAGES, WARM_BODY, Language, started_cold, warmed  # noqa: E402
from worlds import this_host  # noqa: E402

NAMES = tuple(f"fn_first_call_{language.name}_ms" for language in LANGUAGES)
_FACTOR = 0.1
# An agent gets calls at any time, not one straight after another: the host has rested.
_REST_S = 0.05


def measure(rounds: int) -> list[Measurement]:
    """Both languages, by turns with a cold start of the same function."""
    return [_language(language, rounds) for language in LANGUAGES]


def _language(language: Language, rounds: int) -> Measurement:
    measured = Measurement(
        f"fn_first_call_{language.name}_ms",
        "ms",
        Bar("<=", factor_of_peer=_FACTOR),
        f"examples/fn/{language.name}, on one host that has rested for 50 ms: from the launch of a container until "
        "its answer to POST /call is there, by the stand-in of the Fn agent",
        peer="the same function as the FDK starts it, cold",
        beside={"ms until ready": [], "ms until ready, cold": [], "ms of a second call": []},
    )
    with this_host() as host, mock.patch.dict(os.environ, MITOSIS_AGENT=str(host.socket)):
        with warmed(language, host) as warm:
            forked = partial(Forked, warm.handle)
            for _ in range(rounds):
                ready, first, second = _first_call(forked)
                measured.samples.append(first)
                measured.beside["ms until ready"].append(ready)
                measured.beside["ms of a second call"].append(second)
                ready, first, _ = _first_call(partial(started_cold, language))
                measured.peer_samples.append(first)
                measured.beside["ms until ready, cold"].append(ready)
    return measured


def _first_call(launch: Launch) -> tuple[float, float, float]:
    """Milliseconds until ready, until the first answer, and from there until the second one."""
    time.sleep(_REST_S)
    with FnAgent(Function(), launch) as agent:
        begun = time.monotonic()
        container = agent.launch()
        ready = time.monotonic()
        container.call(WARM_BODY.encode())
        first = time.monotonic()
        container.call(WARM_BODY.encode())
        second = time.monotonic()
    return (ready - begun) * 1e3, (first - begun) * 1e3, (second - first) * 1e3
