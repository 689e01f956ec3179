"""New state for generators, as children get it; here in this process, by the same functions."""

import random
import sys

import numpy
from conftest import environment, run
from mitosis import _native


def test_random_goes_another_way():
    random.seed(1)
    random.gauss(0, 1)  # keeps the second of a pair
    state = random.getstate()
    drawn = set()
    for _ in range(3):
        random.setstate(state)
        _native.reseed(sys.modules)
        assert random.getstate()[2] is None
        drawn.add(random.random())
    assert len(drawn) == 3


def test_numpy_goes_another_way():
    numpy.random.seed(1)
    numpy.random.standard_normal()
    state = numpy.random.get_state()
    drawn = set()
    for _ in range(3):
        numpy.random.set_state(state)
        _native.reseed(sys.modules)
        assert numpy.random.get_state()[3] == 0
        drawn.add(numpy.random.random())
    assert len(drawn) == 3


def test_numpy_does_not_wait_for_a_thread_that_held_its_lock():
    run(
        """
        import sys, numpy, mitosis._native
        lock = numpy.random.mtrand._rand._bit_generator.lock
        lock.acquire()
        mitosis._native.reseed(sys.modules)
        numpy.random.random()
        """,
        env=environment(),
    )


def test_openssl_takes_entropy():
    run(
        """
        import ssl, sys, mitosis._native
        mitosis._native.reseed(sys.modules)
        assert len(ssl.RAND_bytes(16)) == 16
        """,
        env=environment(),
    )


def test_modules_that_are_not_loaded_stay_so():
    run(
        """
        import sys, mitosis._native
        loaded = set(sys.modules)
        mitosis._native.reseed(sys.modules)
        assert set(sys.modules) == loaded
        """,
        env=environment(),
    )


def test_no_line_of_python_runs():
    out = run(
        """
        import random, ssl, sys, numpy, mitosis._native
        seen = []
        sys.setprofile(lambda frame, event, _: seen.append(event))
        mitosis._native.reseed(sys.modules)
        sys.setprofile(None)
        print(sorted(set(seen)))
        """,
        env=environment(),
    )
    assert out == "['c_call', 'c_return']\n"


def test_no_finalizer_runs():
    run(
        """
        import gc, random, sys, numpy, mitosis._native
        class Finalized:
            def __del__(self):
                seen.append(1)
        seen, reseed, modules = [], mitosis._native.reseed, sys.modules
        gc.set_threshold(1)
        gc.disable()
        loop = Finalized()
        loop.itself = loop
        del loop
        gc.enable()
        before = len(seen)
        reseed(modules)
        after = len(seen)
        assert before == after, (before, after)
        assert gc.isenabled()
        gc.collect()
        assert seen
        """,
        env=environment(),
    )
