"""Language runtimes with live threads, which were never written to be forked."""

import json
import sys
import time
from pathlib import Path

import pytest
from preloaded import Line, child, program

PROGRAMS = Path(__file__).parent / "programs"
# What the loops of programs/workers.py make.
FLOWN = [60 * 1999000 * number + 1770 for number in range(6)]
WORDS = 50_000
SUM = sum(n * n for n in range(1, WORDS + 1))


def test_threads_of_cpython_go_on_in_parent_and_child(both):
    """A queue's workers, a ThreadPoolExecutor in flight, a condition variable, thread-local memory."""
    with program(both, sys.executable, PROGRAMS / "workers.py") as parent:
        assert parent.line() == "ready"
        handle = parent.prepare()
        with child(both, handle) as first, child(both, handle) as second:
            made = [json.loads(parent.line())]
            for one in (first, second):
                status, out, err = one.finish()
                assert status == 5, (out, err)
                made.append(json.loads(out))
        assert parent.process.wait(10) == 5
    for each in made:
        assert each == {"flown": FLOWN, "done": True, "counted": 400, "late": "late"}


@pytest.mark.parametrize("runtime", ["perl", "ruby"])
def test_a_server_goes_on_with_its_words(both, runtime):
    source = PROGRAMS / {"perl": "counter.pl", "ruby": "counter.rb"}[runtime]
    at, anew = both.directory / "s", both.directory / "t"
    with program(both, f"/usr/bin/{runtime}", source, at) as parent:
        assert parent.line() == "ready"
        with Line(both.path(both.a, "s")) as line:
            assert line.ask("set colour green") == "ok"
            if runtime == "ruby":
                assert line.ask("interrupt") == "done"
        handle = parent.prepare()
        with Line(both.path(both.a, "s")) as line:
            assert line.ask("set colour red") == "ok"
        with child(both, handle, "--listen", f"unix:{at}={anew}") as running:
            with Line(both.path(both.b, "t"), running) as line:
                # As it was when it was prepared, all of it.
                assert line.ask("get colour") == "green"
                assert line.ask("sum") == f"{SUM} whole"
                # Its timer or its threads go on.
                ticks = int(line.ask("get ticks").replace("none", "0"))
                time.sleep(1.3)
                assert int(line.ask("get ticks")) > ticks
                if runtime == "ruby":
                    assert line.ask("interrupt") == "done"
                assert line.ask("set colour blue") == "ok"
                line.ask("end")
            status, _, err = running.finish()
            assert status == 6, err
        # The parent has seen nothing of it.
        with Line(both.path(both.a, "s")) as line:
            assert line.ask("get colour") == "red"
            assert line.ask("sum") == f"{SUM} whole"
