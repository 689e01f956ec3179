"""The agent of this host: where it is, and what it tells."""

from __future__ import annotations

import os
from dataclasses import dataclass

from . import _native

# Part of the wheel, so that `fork` works where nobody runs an agent.
_CARRIED = os.path.join(os.path.dirname(__file__), "bin", "mitosis")


def address() -> str:
    """The unix socket of a running agent: the host's, or one that this process starts and ends."""
    return _native.ensure_agent(_CARRIED)


def _known() -> str:
    """As `address`, but nothing is started for a question."""
    return _native.find_agent()


@dataclass(frozen=True, slots=True)
class SeedLine:
    """A seed of this host."""

    seed: str
    """Its id."""
    pid: int
    """Of the frozen process."""
    parent_pid: int
    """Of the process that prepared it."""
    exe: str
    """That process's program."""
    generation: int
    """Of its children."""
    pages: int
    """Pages that it owns."""
    state: str
    """"publishing", "published" or "dropping"."""
    holders: int
    """Hosts with children of it."""
    age_s: int
    """Seconds since it was prepared."""


@dataclass(frozen=True, slots=True)
class ChildLine:
    """A child on this host."""

    child: str
    """Its id."""
    pid: int
    """Its process id."""
    seed: str
    """Its seed."""
    age_s: int
    """Seconds since it was started."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What `list` tells."""

    seeds: tuple[SeedLine, ...]
    """Seeds that live here."""
    children: tuple[ChildLine, ...]
    """Children that run here."""


def list() -> Listing:
    """All seeds and children of this host, as its agent knows them.

    Raises:
        MissingError: no agent runs here.
    """
    seeds, children = _native.list_all(_known())
    return Listing(
        seeds=tuple(SeedLine(**line) for line in seeds),
        children=tuple(ChildLine(**line) for line in children),
    )


def stats() -> dict[str, int]:
    """The counters of this host's agent, by name (`mitosis stats` explains them).

    Most only grow; `images`, `children`, `seeds` and others are what there is now (docs/json.md has the list).

    Raises:
        MissingError: no agent runs here.
    """
    return _native.stats(_known())
