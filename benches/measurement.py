"""A measured figure: its samples, its peer's, its bar; the table for people and the file for programs."""

from __future__ import annotations

import json
import operator
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Fewer say little of a median on a machine that others use, too.
SAMPLES_MIN = 20
# Rounds of READs, where a round is short.
ROUNDS = 30
# A smoke run shows that a bench still works: its figures are none.
SMOKE_ROUNDS = 2
_OPERATORS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Bar:
    """What a median must reach: `value`, or `factor_of_peer` times the peer's median `plus` something."""

    op: str
    value: float | None = None
    factor_of_peer: float | None = None
    plus: float = 0.0

    def limit(self, peer_samples: list[float]) -> float:
        """The number that the median is held against."""
        if self.value is not None:
            return self.value
        assert self.factor_of_peer is not None
        return self.factor_of_peer * statistics.median(peer_samples) + self.plus

    def as_json(self) -> dict[str, Any]:
        """As the file has it."""
        if self.value is not None:
            return {"op": self.op, "value": self.value}
        return {"op": self.op, "factor_of_peer": self.factor_of_peer, "plus": self.plus}


@dataclass
class Measurement:
    """Raw samples of both sides, taken by turns in one run."""

    name: str
    unit: str
    bar: Bar
    how: str
    """How it was measured, in a line."""
    peer: str | None = None
    samples: list[float] = field(default_factory=list)
    peer_samples: list[float] = field(default_factory=list)
    beside: dict[str, list[float]] = field(default_factory=dict)
    """What else was seen in the same run, without a bar."""

    def check(self, least: int = SAMPLES_MIN) -> None:
        """A figure from too few samples is none."""
        sides = [("samples", self.samples)]
        if self.peer is not None:
            sides.append(("samples of its peer", self.peer_samples))
        for what, samples in sides:
            if len(samples) < least:
                raise RuntimeError(f"{self.name} has {len(samples)} {what}, not {least}")

    def holds(self) -> bool:
        """Whether the median reaches the bar."""
        limit = self.bar.limit(self.peer_samples)
        return bool(_OPERATORS[self.bar.op](statistics.median(self.samples), limit))

    def as_json(self) -> dict[str, Any]:
        """As the file has it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "samples": self.samples,
            "peer": self.peer,
            "peer_samples": self.peer_samples,
            "bar": self.bar.as_json(),
            "how": self.how,
            "beside": self.beside,
        }

    def lines(self) -> list[str]:
        """The table's lines."""
        limit = self.bar.limit(self.peer_samples)
        verdict = "reached" if self.holds() else "MISSED"
        lines = [
            f"{self.name:26} {spread(self.samples):>34} {self.unit:8}"
            f" {self.bar.op} {number(limit):>8}  {verdict}"
        ]
        if self.peer is not None:
            lines.append(f"  peer: {self.peer:18} {spread(self.peer_samples):>34} {self.unit}")
        lines += [f"  {what:24} {spread(seen):>34}" for what, seen in self.beside.items() if seen]
        lines.append(f"  {self.how}")
        return lines


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def spread(samples: list[float]) -> str:
    """Median, and from the 10th to the 90th of a hundred."""
    ordered = sorted(samples)
    low, high = (ordered[round((len(ordered) - 1) * part)] for part in (0.1, 0.9))
    return f"{number(statistics.median(samples))} ({number(low)} .. {number(high)})"


def write(measurements: list[Measurement], path: Path) -> None:
    """The file for programs; never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".json.new")
    draft.write_text(json.dumps([m.as_json() for m in measurements], indent=1) + "\n")
    draft.replace(path)
