"""Jobs in two emulated machines with Soft-RoCE (tests/rxe), and the lines that they print."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from measurement import SMOKE_ROUNDS
from world import built

EMULATED = "an emulator's figure, between two guests with Soft-RoCE"
MIB = 1 << 20
_PROGRAMS = Path(__file__).with_name("programs")
# What either side of a job may need; all of it is given to both.
_BUILT = ("mitosis", "mitosis-reads", "suite-told")
_FILES = ("rc_common.sh", "rc_reads.sh", "rc_forks.sh", "rc_forks.py")
# Two agents a guest, and seeds of 128 MiB that lie in their arenas as well.
_MEMORY_MIB = 1024
_SMOKE_LIMIT_S = 400

Said = list[tuple[list[str], Any]]


def run(job: str, rounds: int, limit_s: int) -> Said:
    """Each line that the job prints: its words, and the JSON behind them."""
    if rounds == SMOKE_ROUNDS:
        said = _smoke()
        if isinstance(said, Exception):
            raise said
        return said[job]
    return _boot(job, rounds, limit_s)


@functools.cache
def _smoke() -> dict[str, Said] | Exception:
    """What all jobs print, in one boot for all; a boot that fails does so for all."""
    jobs: dict[str, Said] = {}
    said: Said = []
    try:
        lines = _boot("rc_smoke.sh", SMOKE_ROUNDS, _SMOKE_LIMIT_S)
    except (subprocess.CalledProcessError, RuntimeError, TimeoutError) as error:
        return error
    for words, value in lines:
        if words[0] == "job":
            said = jobs.setdefault(words[1], [])
        else:
            said.append((words, value))
    return jobs


def _boot(job: str, rounds: int, limit_s: int) -> Said:
    options = ["--name", "bench", "--timeout-s", str(limit_s), "--memory-mib", str(_MEMORY_MIB)]
    for path in [*map(built, _BUILT), *(_PROGRAMS / name for name in _FILES)]:
        options += ["--file", str(path)]
    # With the venv's own name: its base interpreter knows neither numpy nor mitosis.
    options += ["--python", sys.executable, "--env", f"PYTHON={sys.executable}", "--env", f"ROUNDS={rounds}"]
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
