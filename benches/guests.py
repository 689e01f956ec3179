"""Jobs in two emulated machines with Soft-RoCE (tests/rxe), and the lines that they print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from world import built

EMULATED = "an emulator's figure, between two guests with Soft-RoCE"
MIB = 1 << 20
_PROGRAMS = Path(__file__).with_name("programs")


def run(
    job: str, rounds: int, limit_s: int, *programs: str, files: tuple[str, ...] = (), python: bool = False
) -> list[tuple[list[str], Any]]:
    """Each line that the job prints: its words, and the JSON behind them."""
    options = ["--name", "bench", "--timeout-s", str(limit_s), "--env", f"ROUNDS={rounds}"]
    for path in [*map(built, programs), *(_PROGRAMS / name for name in files)]:
        options += ["--file", str(path)]
    if python:
        # With the venv's own name: its base interpreter knows neither numpy nor mitosis.
        options += ["--python", sys.executable, "--env", f"PYTHON={sys.executable}"]
    command = [built("mitosis-guests"), *options, _PROGRAMS / job]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [_parsed(line) for line in done.stdout.splitlines()]


def _parsed(line: str) -> tuple[list[str], Any]:
    words = line.split()
    for behind in range(2, len(words)):
        try:
            value = json.loads(" ".join(words[behind:]))
        except json.JSONDecodeError:
            continue
        return words[1:behind], value
    raise RuntimeError(f"a guest's job says: {line}")
