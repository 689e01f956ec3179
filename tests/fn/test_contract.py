"""The stand-in itself: functions that break the contract are ended as the agent ends them."""

import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial

import fn_agent
import pytest
from fn_agent import Cold, FnAgent, Function, FunctionFailed, InitFailed, InitTimeout, ResponseBroken
from fn_functions import LANGUAGES, started_cold

# What any function has to do, by hand. `SERVE` makes the socket ready as its text says.
SCRIPT = """
    import os, socket, sys, time
    path = os.environ["FN_LISTENER"].removeprefix("unix:")
    directory = os.path.dirname(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(directory + "/other")
    os.chmod(directory + "/other", 0o666)
    listener.listen()
    {ready}
    while True:
        connection, _ = listener.accept()
        request = b""
        while not request.endswith(b"\\r\\n0\\r\\n\\r\\n"):
            if not (data := connection.recv(4096)):
                break
            request += data
        {answer}
        connection.close()
"""
LINK = 'os.symlink("other", path)'
OK = 'connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")'


@pytest.fixture
def agent_of() -> Iterator[object]:
    agents = []

    def make(ready: str = LINK, answer: str = OK) -> FnAgent:
        script = textwrap.dedent(SCRIPT).format(ready=ready, answer=answer)
        command = [sys.executable, "-S", "-c", script]
        agent = FnAgent(Function(), lambda env: Cold(command, env | {"PATH": "/usr/bin"}))
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        agent.close()


def test_one_that_keeps_to_it(agent_of):
    assert agent_of().call().body == b"ok"


@pytest.mark.parametrize(
    ("ready", "text"),
    [
        ('os.symlink(directory + "/other", path)', "not in its own directory"),
        ('os.symlink("none", path)', "cannot be looked at"),
        ('open(path, "w").close()', "is no socket"),
        ('os.chmod(directory + "/other", 0o600); os.symlink("other", path)', "not 666"),
        ("sys.exit(3)", "has ended before"),
    ],
)
def test_a_ready_signal_that_is_none(agent_of, ready, text):
    agent = agent_of(ready)
    with pytest.raises(InitFailed, match=text):
        agent.call()
    assert agent.containers == []


def test_a_socket_without_the_signal_is_not_ready(agent_of, monkeypatch):
    monkeypatch.setattr(fn_agent, "START_LIMIT_S", 0.5)
    with pytest.raises(InitTimeout):
        agent_of("pass").call()


def status(line: str) -> str:
    return f'connection.sendall(b"HTTP/1.1 {line}\\r\\nContent-Length: 0\\r\\n\\r\\n")'


def test_502_is_a_failure_that_the_container_survives(agent_of):
    agent = agent_of(answer=status("502 Bad Gateway"))
    with pytest.raises(FunctionFailed):
        agent.call()
    assert not agent.containers[0].ended


def test_504_is_a_timeout_that_the_container_survives(agent_of):
    agent = agent_of(answer=status("504 Gateway Timeout"))
    with pytest.raises(fn_agent.CallTimeout):
        agent.call()
    assert not agent.containers[0].ended


@pytest.mark.parametrize("answer", [status("201 Created"), status("500 Oh"), "pass"])
def test_another_status_or_none_ends_the_container(agent_of, answer):
    agent = agent_of(answer=answer)
    with pytest.raises(ResponseBroken):
        agent.call()
    assert agent.containers[0].ended


def test_what_a_call_tells_the_function(agent_of):
    body = 'b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(request) + request'
    agent = agent_of(answer=f"connection.sendall({body})")
    told = agent.call(b"body", {"Connection": "close", "X": "y"}, limit_s=9).body.decode()
    head, _, body = told.partition("\r\n\r\n")
    line, *lines = head.split("\r\n")
    assert line == "POST /call HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers["Host"] == "localhost"
    assert headers["X"] == "y"
    assert "Connection" not in headers
    assert (headers["Transfer-Encoding"], "Content-Length" in headers) == ("chunked", False)
    assert body == "4\r\nbody\r\n0\r\n\r\n"
    assert len(headers["Fn-Call-Id"]) > 8
    assert headers["Fn-Deadline"].endswith("Z")


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_an_fdk_without_mitosis_that_rests_too_long_is_ended(language):
    with FnAgent(Function(), partial(started_cold, language), idle_limit_s=0.3) as agent:
        agent.call()
        time.sleep(1)
        assert agent.containers[0].ended
        agent.call()
        assert len(agent.containers) == 2
