"""A C program with 200 threads in every kind of wait (tests/process_suite/c/waits.c)."""

from preloaded import child, program
from worlds import built

THREADS = 200


def test_two_hundred_threads_go_on_in_parent_and_children(both):
    """Each of them finds what it waited for, when the file appears that the program looks out for."""
    said = f"{THREADS} of {THREADS} threads went on"
    with program(both, built("suite-waits"), both.directory / "go", str(THREADS)) as parent:
        assert parent.line() == "standing"
        handle = parent.prepare()
        with child(both, handle) as first, child(both, handle) as second:
            for host in (both.a, both.b):
                both.path(host, "go").touch()
            assert parent.line() == said
            for one in (first, second):
                status, out, err = one.finish()
                assert (status, out) == (0, f"{said}\n"), err
        assert parent.process.wait(10) == 0
