"""Hooks: what they are told, and that they are bounded in time and fail closed. Fork handlers of others."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import built, environment, run, running


def test_the_environment_tells_generation_index_and_payload(agent):
    out = agent.run(
        """
        import os, subprocess, mitosis
        def told():
            script = 'echo "$MITOSIS_GENERATION $MITOSIS_CHILD_INDEX ${MITOSIS_PAYLOAD-none}"'
            return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True).stdout.strip()
        assert told() == "none", told()
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                assert os.environ["MITOSIS_GENERATION"] == str(me.generation)
                print(told(), flush=True)
                if me.payload == b"text" and (child := mitosis.fork()) is None:
                    print(told(), flush=True)
                    os._exit(0)
                if me.payload == b"text":
                    assert child.wait() == 0
                raise SystemExit(0)
            for payload, env in [(b"text", {}), (b"\\xff", {}), (b"", {"MITOSIS_PAYLOAD": "mine"})]:
                assert mitosis.resume(me.handle, payload=payload, env=env).wait() == 0
        """
    )
    assert out.splitlines() == ["1 0 text", "2 0 none", "1 0 none", "1 0 mine"]


def test_mail_that_is_full_is_not_told_in_the_environment(agent):
    agent.run(
        """
        import os, mitosis
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                assert len(me.payload) == 1 << 20, len(me.payload)
                raise SystemExit("MITOSIS_GENERATION" in os.environ)
            assert mitosis.resume(me.handle, payload=bytes(1 << 20)).wait() == 0
        """
    )


def test_order_around_a_prepare(agent):
    out = agent.run(
        """
        import mitosis
        for name in "12":
            mitosis.before_prepare(lambda name=name: print("before", name))
            mitosis.after_prepare(timeout=5)(lambda name=name: print("after", name))
        mitosis.prepare().drop()
        """
    )
    assert out.splitlines() == ["before 2", "before 1", "after 1", "after 2"]


# Where the caller of prepare() is, and what its hook hangs in.
HANGS = {
    "sleep in the main thread": ("main", "time.sleep(600)"),
    "lock in the main thread": ("main", "lock.acquire()"),
    "loop in the main thread": ("main", "while True: pass"),
    "loop in another thread": ("other", "while True: pass"),
    "sleep that catches": (
        "main",
        """try:
                time.sleep(600)
            except Exception:
                pass""",
    ),
}


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("kind", ["before_prepare", "after_prepare"])
def test_a_hook_that_hangs_in_the_caller_is_ended(agent, hang, kind):
    thread, code = HANGS[hang]
    agent.run(
        f"""
        import signal, threading, time, mitosis
        lock = threading.Lock()
        lock.acquire()
        ran = []
        mitosis.before_prepare(lambda: ran.append("before"))
        mitosis.after_prepare(lambda: ran.append("after"))
        hanging = True
        @mitosis.{kind}(timeout=0.2)
        def hangs():
            if not hanging:
                return
            {code}
        def attempt():
            handlers = [signal.getsignal(number) for number in range(1, signal.NSIG - 1)]
            try:
                mitosis.prepare()
            except mitosis.HookTimeout as error:
                assert "the {kind} hook __main__.hangs has not returned after 0.2 s" in str(error), error
                failed.append(error)
            after = [signal.getsignal(number) for number in range(1, signal.NSIG - 1)]
            assert handlers == after
        failed = []
        caller = threading.Thread(target=attempt) if "{thread}" == "other" else None
        caller.start() if caller else attempt()
        caller and caller.join()
        assert len(failed) == 1 and ran[-1] == "after", (failed, ran)
        until = time.monotonic() + 20
        while mitosis.list().seeds:
            assert time.monotonic() < until
            time.sleep(0.01)
        hanging = False
        mitosis.prepare().drop()  # nothing is left over
        """
    )


def test_a_hook_that_cannot_be_ended_is_named_and_nothing_is_prepared(agent):
    out = agent.run(
        """
        import sys, threading, time
        import mitosis, mitosis._bounded
        mitosis._bounded._GRACE_S = 0.1
        sys.stderr = sys.stdout
        @mitosis.before_prepare(timeout=0.1)
        def stubborn():
            until = time.monotonic() + 1
            time.sleep(1)  # no signal ends it in a thread that is not the main one
            while time.monotonic() < until:
                pass
        def attempt():
            try:
                mitosis.prepare()
            except mitosis.HookTimeout:
                print("refused")
        caller = threading.Thread(target=attempt)
        caller.start()
        caller.join()
        """
    )
    assert out.splitlines() == [
        "mitosis: the before_prepare hook __main__.stubborn has not returned after 0.1 s and cannot be ended",
        "refused",
    ]


@pytest.mark.parametrize("threads", ["caller", "all"])
@pytest.mark.parametrize("hang", ["time.sleep(600)", "ctypes.PyDLL(None).pause()", "lock.acquire()"])
def test_a_hook_that_hangs_in_a_child_ends_it(agent, hang, threads):
    out = agent.run(
        f"""
        import ctypes, os, sys, threading, time, mitosis
        lock = threading.Lock()
        lock.acquire()
        @mitosis.after_resume(timeout=0.3)
        def hangs(me):
            {hang}
        os.dup2(1, 2)
        child = mitosis.fork(threads="{threads}")
        if child is None:
            print("a half child went on", flush=True)
            os._exit(0)
        assert child.wait() == 70
        """
    )
    said = "mitosis: this child ends: its after_resume hook __main__.hangs has not returned after 0.3 s"
    assert out.splitlines() == [said]


def test_what_ends_in_time_is_not_ended_later(agent):
    agent.run(
        """
        import threading, time, mitosis
        mitosis.before_prepare(timeout=0.2)(lambda: None)
        mitosis.after_resume(timeout=0.2)(lambda me: None)
        mitosis.after_resume(timeout=None)(lambda me: time.sleep(0.3))
        child = mitosis.fork()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
        if child is None:
            assert len(__import__("os").listdir("/proc/self/task")) == 1
            raise SystemExit(3)
        assert child.wait() == 3
        """
    )


def test_a_hook_may_fork(agent):
    agent.run(
        """
        import os, mitosis
        @mitosis.after_resume
        def forks(me):
            if me.generation == 1:
                pid = os.fork()
                if not pid:
                    raise SystemExit(5)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
                if (inner := mitosis.fork()) is None:
                    os._exit(6)
                assert inner.wait() == 6
        if (child := mitosis.fork()) is None:
            raise SystemExit(4)
        assert child.wait() == 4
        """
    )


def test_timeouts_that_cannot_be_are_refused(agent):
    agent.run(
        """
        import mitosis
        for bad in (0, -1, float("nan")):
            try:
                mitosis.after_resume(timeout=bad)
            except mitosis.ArgumentError as error:
                assert "more than 0" in str(error), error
            else:
                raise AssertionError(bad)
        """
    )


def test_fork_handlers_of_the_standard_library_run_unmodified(agent):
    agent.run(
        """
        import concurrent.futures, logging, threading, mitosis

        handler = logging.StreamHandler()
        logging.getLogger().addHandler(handler)
        pool = concurrent.futures.ThreadPoolExecutor(2)
        assert pool.submit(lambda: 1).result() == 1
        held, let_go = threading.Event(), threading.Event()
        def hold():
            with handler.lock:
                held.set()
                let_go.wait()
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        # logging's own handler takes the locks around a fork, so another thread gives this one up meanwhile.
        threading.Timer(0.2, let_go.set).start()
        import warnings; warnings.simplefilter("ignore")
        child = mitosis.fork()
        if child is None:
            handler.acquire(); handler.release()  # made anew
            assert threading.active_count() == 1 and threading.main_thread() is threading.current_thread()
            new = concurrent.futures.ThreadPoolExecutor(1)
            assert new.submit(lambda: 2).result(timeout=10) == 2
            raise SystemExit(3)
        assert child.wait() == 3
        assert pool.submit(lambda: 4).result() == 4
        """
    )


def test_pthread_atfork_handlers_run_as_for_a_fork(agent, tmp_path):
    source = tmp_path / "handlers.c"
    source.write_text(
        """
        #include <pthread.h>
        #include <unistd.h>
        static void prepare(void) { write(1, "prepare\\n", 8); }
        static void parent(void) { write(1, "parent\\n", 7); }
        static void child(void) { write(1, "child\\n", 6); }
        int set_up(void) { return pthread_atfork(prepare, parent, child); }
        """
    )
    library = tmp_path / "handlers.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    out = agent.run(
        f"""
        import ctypes, os, mitosis
        assert ctypes.CDLL("{library}").set_up() == 0
        seed = mitosis.prepare()
        if isinstance(seed, mitosis.Resumed):
            os._exit(0)
        seed.handle
        print("resume", flush=True)
        mitosis.resume(seed.handle).wait()
        seed.drop()
        """
    )
    before, after = out.split("resume\n")
    assert before.splitlines() == ["prepare", "parent"]
    assert after.splitlines() == ["child"]


def test_a_rehearsal_runs_its_hooks_once_and_up_to_one_that_raises(agent, tmp_path):
    out = agent.run(
        f"""
        import os, mitosis
        def note(text):
            with open({str(tmp_path / "notes")!r}, "a") as notes:
                notes.write(text)
        mitosis.rehearse(lambda: note("first"))
        @mitosis.rehearse
        def fails():
            note(f" of generation {{mitosis.generation()}}")
            os.write(1, b"nobody reads this")
            raise SystemExit("nor this")
        mitosis.rehearse(lambda: note("never"))
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                os._exit(5)
            print(mitosis.resume(me.handle).wait())
        """
    )
    assert out == "5\n"
    assert (tmp_path / "notes").read_text() == "first of generation 1"


def test_what_a_rehearsal_writes_children_have_of_their_own(agent):
    """The page faults of a child that writes what its rehearsal wrote; of one that was not cloned ahead there are more."""
    out = agent.run(
        """
        import mmap, os, resource, time, mitosis
        memory = mmap.mmap(-1, 1000 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        def write():
            for at in range(0, len(memory), mmap.PAGESIZE):
                memory[at] = 1
        write()
        mitosis.rehearse(write)
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                write()
                os._exit(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 100)
            for _ in range(50):
                if mitosis.resume(me.handle).wait() == 1:
                    print("given ahead")
                    break
                time.sleep(0.2)
        """
    )
    assert out == "given ahead\n"


def test_hooks_are_told_by_how_much_the_clock_jumps():
    # The process's clock is ahead of its agent's by its own time namespace, the last one of the user namespace.
    ahead_s = 100_000
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        socket, log = Path(directory) / "agent.sock", Path(directory) / "log"
        command = [built("mitosis", "MITOSIS_AGENT_BIN"), "agent", "--socket", socket]
        with running(["unshare", "--user", "--map-root-user", "--mount", *command], log) as agent:
            enter = ("nsenter", "--user", "--mount", "--target", str(agent.pid))
            ahead = ("unshare", "--time", "--fork", "--monotonic", str(ahead_s))
            out = run(
                f"""
                import time, mitosis
                with open("/proc/sys/user/max_time_namespaces", "w") as limit:
                    limit.write("0")
                noted = time.monotonic_ns()
                @mitosis.after_resume
                def moves(me):
                    global noted
                    noted += me.clock_delta_ns
                    delta_s = me.clock_delta_ns / 1e9
                    # That of the time namespace is exact; what is asked in two of them, one after the other, is not.
                    assert abs(delta_s + {ahead_s}) < 100, delta_s
                if (child := mitosis.fork()) is None:
                    passed_s = (time.monotonic_ns() - noted) / 1e9
                    assert 0 <= passed_s < 100, passed_s
                    print("told", flush=True)
                    raise SystemExit(0)
                assert child.wait() == 0
                """,
                env=environment(MITOSIS_AGENT=str(socket)),
                argv=(*enter, *ahead),
            )
        assert out == "told\n"
        assert "no time namespace is to be had" in log.read_text()
