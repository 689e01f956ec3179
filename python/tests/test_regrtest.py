"""The interpreter's own tests of some modules, in children; `make test-python-regrtest` runs all that a fork touches."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "regrtest"))

from compare import MODES, compare, of_module

MULTIPROCESSING = ("Connection", "Heap", "Pool", "Queue", "SharedMemory")
# Those that take seconds, all of their tests or some. Each runs three times: outside, and in a child of either kind.
QUICK = {
    "test_random": (),
    "test_mmap": (),
    "test_os": (),
    "test_threading": (),
    "test_multiprocessing_fork": tuple(f"*.WithProcessesTest{name}.*" for name in MULTIPROCESSING),
}


@pytest.mark.parametrize("module", QUICK)
def test_a_module_does_in_a_child_what_it_does_outside(agent, module):
    patterns = QUICK[module]
    outside = of_module(module, "outside", str(agent.socket), list(patterns))
    assert list(outside.values()).count("ok") > 20, outside
    unknown = [compare(module, mode, str(agent.socket), outside, patterns) for mode in MODES]
    assert unknown == [[], []]
