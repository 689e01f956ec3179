"""What works without an agent, and what is said then."""

import pickle
from pathlib import Path

import mitosis
import pytest
from conftest import environment, run

KEY = "0123456789abcdef" * 4
TEXT = f"mitosis://host-a:7370/00000000deadbeef#{KEY}"
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def test_import_needs_no_agent_and_no_rights():
    script = "import mitosis; print(mitosis.generation())"
    assert run(script, env=environment(), argv=NO_CAPABILITIES) == "0\n"


def test_import_starts_no_thread_and_leaves_no_descriptor_open():
    run(
        """
        import os
        before = os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")
        import mitosis
        assert (os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")) == before
        """,
        env=environment(),
    )


def test_everything_public_is_there_and_documented():
    for name in mitosis.__all__:
        assert getattr(mitosis, name).__doc__, name
    assert "list" not in mitosis.__all__
    assert mitosis.list.__doc__


def test_exceptions_are_errors_and_say_where_they_are_from():
    kinds = [getattr(mitosis, name) for name in mitosis.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) == 15
    assert all(issubclass(kind, mitosis.Error) for kind in kinds)
    assert {kind.__module__ for kind in kinds} == {"mitosis"}
    assert issubclass(mitosis.ArgumentError, ValueError)


def test_a_named_agent_that_is_not_there_is_named():
    out = run(
        """
        import mitosis
        for call in (mitosis.fork, mitosis.prepare, mitosis.list, mitosis.stats):
            try:
                call()
            except mitosis.MissingError as error:
                print(error)
        """,
        env=environment(MITOSIS_AGENT="/nonexistent/agent.sock"),
    )
    lines = out.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert "/nonexistent/agent.sock" in line
        assert "start one with 'mitosis agent'" in line


def test_an_agent_binary_that_is_not_there_is_named():
    out = run(
        """
        import mitosis
        try:
            mitosis.fork()
        except mitosis.MissingError as error:
            print(error)
        """,
        env=environment(MITOSIS_AGENT_BIN="/nonexistent/mitosis", XDG_RUNTIME_DIR=""),
    )
    assert "/nonexistent/mitosis" in out


def test_a_handle_hides_its_key():
    handle = mitosis.Handle(TEXT)
    for shown in (str(handle), repr(handle), f"{handle}", f"{handle!r}", f"{[handle]}"):
        assert KEY not in shown
        assert "00000000deadbeef#***" in shown
    assert handle.reveal() == TEXT
    assert (handle.agent, handle.seed) == ("host-a:7370", "00000000deadbeef")


def test_handles_are_values():
    handle = mitosis.Handle(TEXT)
    other = mitosis.Handle(TEXT.replace("0#", "1#") if "0#" in TEXT else TEXT[:-1] + "0")
    assert pickle.loads(pickle.dumps(handle)) == handle
    assert {handle, mitosis.Handle(TEXT)} == {handle}
    assert handle != other
    assert handle != TEXT


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "must read mitosis://"),
        ("mitosis://host-a:7370/00000000deadbeef", "no key"),
        (TEXT[:-1], "64 hex digits"),
        (TEXT.replace("deadbeef", "dead"), "16 hex digits"),
        (TEXT.replace(":7370", ""), "HOST:PORT"),
    ],
)
def test_what_is_no_handle_is_refused_without_its_key(text, remedy):
    with pytest.raises(mitosis.ArgumentError, match=remedy) as caught:
        mitosis.Handle(text)
    assert KEY[:-1] not in str(caught.value)


@pytest.mark.parametrize("n", [0, -1, 2**32])
def test_a_count_that_cannot_be_is_refused(n):
    with pytest.raises(mitosis.ArgumentError, match="1 to 10,000"):
        mitosis.resume(TEXT, n=n)


@pytest.mark.parametrize("limit", [-1, 2**64])
def test_a_limit_that_cannot_be_is_refused(limit):
    with pytest.raises(mitosis.ArgumentError, match="shared_copy_limit"):
        mitosis.prepare(shared_copy_limit=limit)


def test_files_of_another_distribution_are_warned_of(tmp_path):
    (tmp_path / "mitosis").symlink_to(Path(mitosis.__file__).parent)
    script = f"""
        import sys, warnings
        sys.path.insert(0, "{tmp_path}")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            import mitosis
        assert mitosis.__file__.startswith("{tmp_path}"), mitosis.__file__
        print(*(f"{{each.category.__name__}}: {{each.message}}" for each in told))
        """
    (tmp_path / "mitosis_fork-0.1.0.dist-info").mkdir()
    assert run(script, env=environment()) == "\n"
    (tmp_path / "mitosis-1.2.0.dist-info").mkdir()
    told = run(script, env=environment())
    assert told.startswith(f"RuntimeWarning: another distribution with a package 'mitosis' is installed in {tmp_path} ")
    assert "(mitosis-1.2.0.dist-info)" in told and "pip uninstall mitosis mitosis-fork" in told
