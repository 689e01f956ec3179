"""Runs one of the interpreter's own test modules, here or in a child: module.py MODULE MODE RESULTS [PATTERN...].

Of the module's tests those run whose names match a pattern (fnmatch), or all. MODE is "outside", or what mitosis.fork()
takes as threads: "caller" or "all". The module is imported before the fork, as a warm process has it. RESULTS gets a
JSON object: what became of each test, by its name.
"""

from __future__ import annotations

import faulthandler
import fnmatch
import importlib
import json
import os
import sys
import types
import unittest
from collections.abc import Iterator

from test import support
from test.libregrtest.cmdline import ALL_RESOURCES

# Longer than any module takes; a hang is told by all its stacks.
HANG_S = 280
# Resources of regrtest's: nobody's network, and no files of gigabytes.
NOT_USED = ("network", "urlfetch", "largefile")
LEFT_OUT = (
    # It connects to its own virtual machine by way of the host, which may never answer: then it hangs, outside as well.
    "test_socket.ThreadedVSOCKSocketStreamTest.",
    # It ends threads that sleep for five minutes, and waits for them, outside as well: later CPythons leave it out.
    "test_multiprocessing_fork.WithThreadsTestPool.test_terminate",
)


def named(name: str) -> types.ModuleType:
    """A module of the interpreter's tests, or what stands here in its place."""
    try:
        return importlib.import_module(f"test.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"test.{name}":
            raise
        return importlib.import_module(name.removeprefix("test_"))


class Results(unittest.TestResult):
    """What became of each test; subtests count for theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.of.setdefault(name_of(test), "ok")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.of[name_of(test)] = "skipped"

    def addError(self, test: unittest.TestCase, error: tuple) -> None:
        self.of[name_of(test)] = "failed: " + self._exc_info_to_string(error, test)[-1500:]

    addFailure = addError

    def addExpectedFailure(self, test: unittest.TestCase, error: tuple) -> None:
        self.of[name_of(test)] = "expected failure"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.of[name_of(test)] = "unexpected success"

    def addSubTest(self, test: unittest.TestCase, subtest: object, error: tuple | None) -> None:
        if error is not None:
            self.addError(test, error)


def name_of(test: unittest.TestCase) -> str:
    name = test.id().removeprefix("test.")
    return name if name.startswith("test_") else f"test_{name}"


def each(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from each(one)
        else:
            yield one


def run(module: object, tests: list[str], results_path: str) -> None:
    def is_asked_for(name: str) -> bool:
        is_named = not tests or any(fnmatch.fnmatch(name, pattern) for pattern in tests)
        return is_named and not name.startswith(LEFT_OUT)

    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    results = Results()
    unittest.TestSuite(test for test in each(suite) if is_asked_for(name_of(test))).run(results)
    with open(results_path, "w", encoding="utf-8") as file:
        json.dump(results.of, file)


def main() -> None:
    name, mode, results_path, *tests = sys.argv[1:]
    support.use_resources = [one for one in ALL_RESOURCES if one not in NOT_USED]
    module = named(name)
    child = None
    if mode != "outside":
        import mitosis

        child = mitosis.fork(threads=mode)
    if child is not None:
        status = child.wait(timeout=HANG_S + 20)
        raise SystemExit(status if 0 <= status < 256 else f"the child ended with {status}")
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    run(module, tests, results_path)
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.flush()
    # What the tests left over (threads, processes) is not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
