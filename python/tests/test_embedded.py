"""Where nobody runs an agent, a process has one of its own, from the wheel."""

import os
import tempfile
import time
from pathlib import Path

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
