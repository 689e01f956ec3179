"""The side of a prepare that stays: seen with an agent that takes a seed and says nothing."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import environment, run


@pytest.fixture
def silent() -> Iterator[dict[str, str]]:
    """The environment of processes whose agent takes connections and keeps them, without a word."""
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        path = Path(directory) / "agent.sock"
        kept = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(16)

            def accept() -> None:
                while True:
                    try:
                        kept.append(listener.accept()[0])
                    except OSError:
                        return

            thread = threading.Thread(target=accept)
            thread.start()
            yield environment(MITOSIS_AGENT=str(path))
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


def test_the_order_of_hooks_and_handlers_in_the_caller(silent):
    out = run(
        """
        import os, mitosis
        for name in "12":
            mitosis.before_prepare(lambda name=name: print("before_prepare", name))
            mitosis.after_prepare(lambda name=name: print("after_prepare", name))
            mitosis.after_resume(lambda resumed: print("never"))
            os.register_at_fork(
                before=lambda name=name: print("before fork", name),
                after_in_parent=lambda name=name: print("after fork", name),
                after_in_child=lambda: print("never"),
            )
        seed = mitosis.prepare()
        assert isinstance(seed, mitosis.Seed), seed
        """,
        env=silent,
    )
    assert out.splitlines() == [
        "before_prepare 2",
        "before_prepare 1",
        "before fork 2",
        "before fork 1",
        "after fork 1",
        "after fork 2",
        "after_prepare 1",
        "after_prepare 2",
    ]


def test_the_way_back_is_short(silent):
    """Behind a fork each object that is touched is a page that is copied while the caller waits."""
    out = run(
        """
        import sys, mitosis
        from mitosis import _native
        seen = []
        def profile(frame, event, what):
            seen.append((event, what.__name__ if event.startswith("c_") else frame.f_code.co_name))
        sys.setprofile(profile)
        seed = mitosis.prepare()
        sys.setprofile(None)
        back = seen[seen.index(("c_return", "prepare")) + 1:]
        print([what for what in back if what[0] in ("call", "c_call")], seed.pid > 0)
        """,
        env=silent,
    )
    assert out == "[('c_call', 'setprofile')] True\n"


def test_hooks_are_decorators():
    import mitosis

    def hook(*_: object) -> None:
        raise AssertionError

    for register in (mitosis.before_prepare, mitosis.after_prepare, mitosis.after_resume):
        assert register(hook) is hook
    from mitosis import _hooks

    for hooks in (_hooks._before_prepare, _hooks._after_prepare, _hooks._after_resume):
        assert hooks.pop().function is hook


def test_a_hook_that_raises_keeps_the_process_from_being_prepared(silent):
    out = run(
        """
        import os, mitosis
        os.register_at_fork(before=lambda: print("forked"))
        mitosis.after_prepare(lambda: print("after"))
        @mitosis.before_prepare
        def refuse():
            raise RuntimeError("not now")
        try:
            mitosis.prepare()
        except RuntimeError as error:
            print(error)
        """,
        env=silent,
    )
    assert out == "after\nnot now\n"


def test_the_seed_does_not_show(silent):
    run(
        """
        import os, signal, time, mitosis
        seen = []
        signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
        seed = mitosis.prepare()
        os.kill(seed.pid, signal.SIGKILL)
        time.sleep(0.05)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            raise AssertionError("waitpid tells of the seed")
        assert not seen
        """,
        env=silent,
    )


def test_what_is_buffered_is_printed_once_and_before(silent):
    out = run(
        """
        import sys, mitosis
        sys.stdout.write("before ")
        seed = mitosis.prepare()
        sys.stdout.write("after")
        """,
        env=silent,
    )
    assert out == "before after"


def test_the_interpreter_goes_on_with_its_threads(silent):
    run(
        """
        import threading, time, warnings, mitosis
        warnings.simplefilter("ignore", DeprecationWarning)
        counts, go_on = [0] * 3, True
        def count(i):
            while go_on:
                counts[i] += 1
        threads = [threading.Thread(target=count, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        seeds = [mitosis.prepare() for _ in range(5)]
        before = list(counts)
        time.sleep(0.3)
        assert all(now > then for now, then in zip(counts, before))
        go_on = False
        for thread in threads:
            thread.join()
        import json.tool  # the import lock is free
        """,
        env=silent,
    )
