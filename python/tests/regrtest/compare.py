"""The interpreter's own tests of what a fork touches: in a child they do what they do outside.

    compare.py [--mode caller] [--mode all] [MODULE...]

runs each module outside and in a child of each mode, and prints each test that came out differently, with the reason
if `differences` has one. What differs is run three times more alone: a busy machine makes tests of times fail on
either side. Exits with 1 where a difference has no reason.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Runs of a test that differed without a reason.
ALONE = 3
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from conftest import built, environment, running  # noqa: E402
from differences import DIFFERENCES  # noqa: E402

ALL = [
    "test_random",
    "test_mmap",
    "test_selectors",
    "test_os",
    "test_signal",
    "test_threading",
    "test_socket",
    "test_ssl",
    "test_subprocess",
    "test_asyncio",
    "test_multiprocessing_fork",
]
MODES = ["caller", "all"]
# The slowest module takes two minutes alone on a small machine.
LIMIT_S = 400


def of_module(module: str, mode: str, agent: str, patterns: list[str]) -> dict[str, str]:
    """What became of the tests of one module: of those that match, or of all."""
    env = environment(MITOSIS_AGENT=agent)
    with tempfile.TemporaryDirectory(prefix="mitosis-regrtest-") as directory:
        results = Path(directory) / "results"
        scratch = Path(directory) / "scratch"
        scratch.mkdir()
        command = [sys.executable, HERE / "module.py", module, mode, results, *patterns]
        with subprocess.Popen(
            command,
            cwd=scratch,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                said = process.communicate(timeout=LIMIT_S)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said = process.communicate()[0]
        if not results.exists():
            tail = said.decode(errors="replace")[-3000:]
            return {f"{module}": f"failed: no results, status {process.returncode}\n{tail}"}
        return json.loads(results.read_text())


def reason_for(test: str, mode: str) -> str | None:
    for pattern, modes, reason in DIFFERENCES:
        if mode in modes and fnmatch.fnmatch(test, pattern):
            return reason
    return None


def kind(outcome: str | None) -> str:
    return "not run" if outcome is None else outcome.split(":", 1)[0]


def differing(outside: dict[str, str], inside: dict[str, str]) -> list[str]:
    tests = sorted(outside.keys() | inside.keys())
    return [test for test in tests if kind(outside.get(test)) != kind(inside.get(test))]


def agrees_alone(module: str, mode: str, agent: str, test: str) -> bool:
    """What fails in a child now and then is no test of times that a busy machine made fail once."""

    def alone(mode: str) -> str:
        return kind(of_module(module, mode, agent, [test]).get(test))

    return all(alone(mode) == alone("outside") for _ in range(ALONE))


def compare(
    module: str, mode: str, agent: str, outside: dict[str, str], patterns: tuple[str, ...] = ()
) -> list[str]:
    """The tests that differ without a reason; prints all that do."""
    inside = of_module(module, mode, agent, list(patterns))
    unknown = []
    differ = differing(outside, inside)
    for test in differ:
        reason = reason_for(test, mode)
        ran = test in inside and test in outside
        if reason is None and ran and agrees_alone(module, mode, agent, test):
            print(f"  {test}: differed once, and in none of {ALONE} runs alone")
            continue
        print(f"  {test}: outside {kind(outside.get(test))}, inside {kind(inside.get(test))}")
        if reason is None:
            print(inside.get(test) or outside.get(test))
            unknown.append(test)
        else:
            print(f"    known: {reason}")
    counts = Counter(map(kind, inside.values()))
    counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    differences = f"{len(differ)} differ, {len(unknown)} without a reason"
    print(f"{module} in a child, threads={mode!r}: {counted}; {differences}")
    return unknown


@contextlib.contextmanager
def agent_for_all() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        socket = str(Path(directory) / "agent.sock")
        command = [built("mitosis", "MITOSIS_AGENT_BIN"), "agent", "--socket", socket]
        with running(command, Path(directory) / "log"):
            yield socket


def main() -> int:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("module", nargs="*", default=ALL)
    arguments = parser.parse_args()
    unknown = []
    with agent_for_all() as agent:
        for module in arguments.module:
            outside = of_module(module, "outside", agent, [])
            if module in outside:
                print(f"{module} does not run outside: {outside[module]}")
                unknown.append(module)
                continue
            for mode in arguments.mode or MODES:
                unknown += compare(module, mode, agent, outside)
                sys.stdout.flush()
    return 1 if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main())
