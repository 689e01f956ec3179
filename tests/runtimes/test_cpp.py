"""A C++ program with threads, stopped as they stand; and one that cannot be forked, which is said."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from preloaded import parent_and_children_say, program

SOURCE = Path(__file__).parent / "programs/pool.cc"
SUM = 3 * 20000 * 19999 // 2


@pytest.fixture(scope="module")
def compiled():
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        for name, options in (("pool", []), ("fixed", ["-static"])):
            command = ["c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *options]
            subprocess.run([*command, "-o", f"{directory}/{name}", SOURCE], check=True)
        yield Path(directory)


def test_a_pool_of_threads_works_in_parent_and_children(both, compiled):
    said = f"sum {SUM}, thrown"
    with program(both, compiled / "pool", both.directory / "go") as parent:
        assert parent.line() == "standing"
        parent_and_children_say(both, parent, said)


def test_a_static_program_runs_and_is_refused_with_the_reason(both, compiled):
    with program(both, compiled / "fixed", both.directory / "go") as parent:
        assert parent.line() == "standing"
        with pytest.raises(RuntimeError, match="is linked statically"):
            parent.prepare()
        both.path(both.a, "go").touch()
        assert parent.line() == f"sum {SUM}, thrown"
