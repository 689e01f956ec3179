"""fork() on this host, with an agent: what the child has, and what its end looks like here."""

import signal

import pytest


def test_memory_goes_along_and_the_status_comes_back(agent):
    out = agent.run(
        """
        import os, mitosis
        nonce = os.urandom(8).hex()
        print("parent", nonce)
        if (child := mitosis.fork()) is None:
            print("child", nonce)
            raise SystemExit(7)
        assert child.returncode is None
        assert child.wait() == child.wait() == child.poll() == child.returncode == 7
        assert child.pid != os.getpid() and child.host and child.id in repr(child)
        """
    )
    (_, parents), (_, childs) = (line.split() for line in sorted(out.splitlines()))
    assert parents == childs


def test_memory_of_numpy_goes_along(agent):
    agent.run(
        """
        import numpy, mitosis
        array = numpy.arange(4_000_000, dtype=numpy.int64)
        expected = int(array.sum())
        if (child := mitosis.fork()) is None:
            assert array.sum() == expected
            floats = array[:300_000].astype(float).reshape(600, 500)
            assert (floats @ floats.T).shape == (600, 600)  # OpenBLAS makes its threads anew
            array[:] = 1
            raise SystemExit(0 if array.sum() == len(array) else 1)
        assert child.wait() == 0
        assert array.sum() == expected
        """
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_child_and_come_back_negated(agent, number):
    agent.run(
        f"""
        import time, mitosis
        if (child := mitosis.fork()) is None:
            time.sleep(60)
        child.kill({int(number)})
        assert child.wait(timeout=20) == -{int(number)}
        child.kill()  # of what has ended: nothing
        """
    )


def test_terminate_runs_the_childs_handler(agent):
    agent.run(
        """
        import signal, time, mitosis
        signal.signal(signal.SIGTERM, lambda *_: exit(5))
        if (child := mitosis.fork()) is None:
            time.sleep(60)
        child.terminate()
        assert child.wait(timeout=20) == 5
        """
    )


def test_waiting_has_a_deadline_and_a_descriptor(agent):
    agent.run(
        """
        import select, time, mitosis
        if (child := mitosis.fork()) is None:
            time.sleep(60)
        start = time.monotonic()
        try:
            child.wait(timeout=0.2)
        except TimeoutError as error:
            assert child.id in str(error)
        else:
            raise AssertionError("it has not ended")
        assert 0.2 <= time.monotonic() - start < 5
        assert child.poll() is None
        assert not select.select([child], [], [], 0)[0]
        child.kill()
        assert select.select([child], [], [], 20)[0]
        assert child.poll() == -9
        """
    )


def test_a_wait_can_be_interrupted(agent):
    agent.run(
        """
        import signal, time, mitosis
        if (child := mitosis.fork()) is None:
            time.sleep(60)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            child.wait()
        except KeyboardInterrupt:
            child.kill()
        assert child.wait() == -9
        """
    )


def test_both_streams_are_relayed_in_order(agent):
    out = agent.run(
        """
        import os, sys, mitosis
        sys.stdout.write("before ")
        sys.stderr = sys.stdout
        if (child := mitosis.fork()) is None:
            for i in range(200):
                print(i)
            raise SystemExit(0)
        child.wait()
        print("end")
        """
    )
    assert out.splitlines() == ["before 0", *map(str, range(1, 200)), "end"]


def test_an_exception_in_the_child_ends_it_like_any_process(agent):
    agent.run(
        """
        import mitosis
        if (child := mitosis.fork()) is None:
            raise RuntimeError("of the child")
        assert child.wait() == 1
        """
    )


def test_the_caller_may_catch_errors_without_catching_them_in_a_child(agent):
    out = agent.run(
        """
        import mitosis
        try:
            child = mitosis.fork("nowhere.invalid")
        except mitosis.Error as error:
            print(type(error).__name__)
        """
    )
    assert out == "ArgumentError\n"  # this agent has no remote listener, and says so


def test_the_caller_sees_no_new_child(agent):
    agent.run(
        """
        import os, signal, mitosis
        signals = []
        signal.signal(signal.SIGCHLD, lambda *_: signals.append(1))
        if (child := mitosis.fork()) is None:
            raise SystemExit(0)
        assert child.wait() == 0
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            raise AssertionError
        assert not signals
        """
    )


def test_a_child_of_a_child(agent):
    out = agent.run(
        """
        import mitosis
        trail = [mitosis.generation()]
        for _ in range(2):
            if (child := mitosis.fork()) is not None:
                raise SystemExit(child.wait())
            trail.append(mitosis.generation())
        print(trail)
        """
    )
    assert out == "[0, 1, 2]\n"


def test_the_childs_own_processes_work(agent):
    out = agent.run(
        """
        import os, subprocess, threading, mitosis
        if (child := mitosis.fork()) is None:
            pid = os.fork()
            if pid == 0:
                os._exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            print(subprocess.run(["echo", "exec"], capture_output=True, text=True).stdout.strip())
            thread = threading.Thread(target=print, args=("thread",))
            thread.start(); thread.join()
            import asyncio
            print(asyncio.run(asyncio.sleep(0.01, "loop")))
            raise SystemExit(0)
        assert child.wait() == 0
        """
    )
    assert out.split() == ["exec", "thread", "loop"]


def test_nothing_is_left_when_the_child_has_ended(agent):
    agent.run(
        """
        import time, mitosis
        if (child := mitosis.fork()) is None:
            raise SystemExit(0)
        child.wait()
        deadline = time.monotonic() + 10
        while (found := mitosis.list()).seeds or found.children:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        """
    )
