"""A C program with 200 threads in every kind of wait (tests/process_suite/c/waits.c)."""

from preloaded import parent_and_children_say, program
from worlds import built

THREADS = 200


def test_two_hundred_threads_go_on_in_parent_and_children(both):
    """Each of them finds what it waited for, when the file appears that the program looks out for."""
    said = f"{THREADS} of {THREADS} threads went on"
    with program(both, built("suite-waits"), both.directory / "go", str(THREADS)) as parent:
        assert parent.line() == "standing"
        parent_and_children_say(both, parent, said)
        assert parent.process.wait(10) == 0
