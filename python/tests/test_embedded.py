"""Where nobody runs an agent, a process has one of its own, from the wheel."""

import os
import tempfile
import time
from pathlib import Path

import pytest
from conftest import built, environment, run

WAIT_S = 10


def processes_with(text: str) -> list[str]:
    """Command lines that contain `text`, of all processes."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def embedded(directory: str, **changes: str) -> dict[str, str]:
    return environment(XDG_RUNTIME_DIR=directory, **changes)


def gone(directory: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while (left := processes_with(directory)) or os.listdir(directory):
        assert time.monotonic() < deadline, (left, os.listdir(directory))
        time.sleep(0.02)


SCRIPT = """
import os, mitosis
if (child := mitosis.fork()) is None:
    print("child", flush=True)
    os._exit(4)
assert child.wait() == 4
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("alone", flush=True)
"""


def test_fork_starts_an_agent_that_ends_with_the_process():
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        env = embedded(directory, MITOSIS_AGENT_BIN=str(binary))
        assert run(SCRIPT, env=env) == "child\nalone\n"
        gone(directory)


def test_the_wheel_carries_the_agent():
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        assert run(SCRIPT, env=embedded(directory, PATH="")) == "child\nalone\n"
        gone(directory)


def test_a_process_that_is_killed_leaves_no_agent():
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        env = embedded(directory, MITOSIS_AGENT_BIN=str(binary))
        run(
            """
            import os, signal, mitosis
            seed = mitosis.prepare()
            seed.handle
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            env=env,
            status=-9,
        )
        gone(directory)


def test_an_agent_that_is_killed_leaves_nothing_and_the_next_fork_has_another():
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        env = embedded(directory, MITOSIS_AGENT_BIN=str(binary))
        out = run(
            """
            import os, pathlib, signal, time, mitosis
            place = os.environ["XDG_RUNTIME_DIR"]
            def agents():
                for process in pathlib.Path("/proc").glob("[0-9]*"):
                    try:
                        line = (process / "cmdline").read_bytes()
                    except OSError:
                        continue
                    if b" agent " in line.replace(bytes(1), b" ") and place.encode() in line:
                        yield int(process.name)
            mitosis.prepare().handle
            [agent] = agents()
            os.kill(agent, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while os.listdir(place):
                assert time.monotonic() < deadline, os.listdir(place)
                time.sleep(0.02)
            if (child := mitosis.fork()) is None:
                os._exit(4)
            assert child.wait() == 4
            print("another", agent not in agents())
            """,
            env=env,
        )
        assert out == "another True\n"
        gone(directory)


def test_without_rights_it_says_what_is_missing():
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        out = run(
            """
            import mitosis
            try:
                mitosis.fork()
            except mitosis.MissingError as error:
                print(error)
            """,
            env=embedded(directory, MITOSIS_AGENT_BIN=str(binary)),
            argv=("setpriv", "--bounding-set=-all", "--inh-caps=-all"),
        )
        assert any(word in out for word in ("root", "CAP_", "capabilit", "permission")), out
        gone(directory)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MITOSIS_FABRIC": "bogus"}, ("bogus", "MITOSIS_FABRIC")),
        ({"MITOSIS_LISTEN": "7399"}, ("secret", "--secret-file")),
        ({"MITOSIS_LOG": "mitosis=loud"}, ("mitosis=loud", "debug")),
        ({"MITOSIS_PAGER_CPUS": "1023"}, ("--pager-cpus 1023",)),
    ],
)
def test_an_agent_that_does_not_start_says_why_and_leaves_nothing(changes, words):
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    script = """
        import mitosis
        try:
            mitosis.fork()
        except mitosis.MissingError as error:
            print(error)
    """
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        said = run(script, env=embedded(directory, MITOSIS_AGENT_BIN=str(binary), **changes))
        assert "ended at once" in said
        assert all(word in said for word in words), said
        gone(directory)


def test_too_few_files_are_told_at_once():
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    limited = ("/bin/sh", "-c", 'ulimit -n 16; exec "$@"', "-")
    script = """
        import mitosis
        try:
            mitosis.fork()
        except mitosis.MissingError as error:
            print(error)
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        env = embedded(directory, MITOSIS_AGENT_BIN=str(binary))
        said = run(script, env=env, argv=limited)
        assert "16 files" in said and "ulimit -n" in said, said
        gone(directory)
    assert time.monotonic() - begun < WAIT_S / 2


def test_the_processes_own_agent_is_asked():
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    script = """
        import mitosis
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Seed):
                me.handle
                [line] = mitosis.list().seeds
                assert line.pid == me.pid
                assert mitosis.stats()["seeds_published"] == 1
    """
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        run(script, env=embedded(directory, MITOSIS_AGENT_BIN=str(binary)))
        gone(directory)
