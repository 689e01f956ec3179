"""Servers that nobody here wrote: Redis, and nginx."""

import http.client
import re
import socket
import time
from pathlib import Path

import pytest
from preloaded import ANSWER_LIMIT_S, Line, child, connect, program
from worlds import TARGET

PROGRAMS = Path(__file__).parent / "programs"
NGINX = TARGET / "debian/nginx/usr/sbin/nginx"
KEYS = 20_000


@pytest.fixture
def redis_server(both):
    """Debian's redis-tools has the server's program, under the name of another."""
    path = both.path(both.a, "redis-server")
    path.symlink_to("/usr/bin/redis-check-rdb")
    return both.directory / "redis-server"


def bulk(line, command):
    """Redis's answer of a bulk string: its length, then itself."""
    length = line.ask(command)
    assert length.startswith("$"), length
    return line._file.readline().strip()


def test_redis(both, redis_server):
    """With its background threads, its timer and its event loop: SET before, GET in the child."""
    at, anew = both.directory / "s", both.directory / "t"
    options = ["--port", "0", "--unixsocket", at, "--save", "", "--appendonly", "no"]
    with program(both, redis_server, *options, "--daemonize", "no", cwd=both.directory) as parent:
        with Line(wait_for_socket(both.path(both.a, "s"))) as line:
            for first in range(0, KEYS, 500):
                pairs = " ".join(f"key:{n} value-{n * 7}" for n in range(first, first + 500))
                assert line.ask(f"MSET {pairs}") == "+OK"
            handle = parent.prepare()
            # What does not cross is named.
            lost = [row for row in parent.inspect(handle).splitlines() if "peer has gone" in row]
            assert len(lost) == 1 and "socket:" in lost[0], lost
            # And refused by that name, where that is asked for.
            named = rf"a unix socket at {re.escape(str(at))}.* \(connections\)"
            with pytest.raises(RuntimeError, match=named):
                parent.prepare("--refuse", "connections")
            # The connection of the parent goes on, and what it does now is not in the child.
            assert line.ask("SET key:1 later") == "+OK"
        with child(both, handle, "--listen", f"unix:{at}={anew}") as running:
            with Line(both.path(both.b, "t"), running) as line:
                assert line.ask("DBSIZE") == f":{KEYS}"
                for n in range(0, KEYS, 501):
                    assert bulk(line, f"GET key:{n}") == f"value-{n * 7}"
                assert bulk(line, "GET key:1") == "value-7"
                # Memory is given back by a background thread, and by jemalloc.
                assert line.ask("FLUSHALL ASYNC") == "+OK"
                assert line.ask("DBSIZE") == ":0"
                assert line.ask("SET again yes") == "+OK"
                # A key's end comes by the timer.
                assert line.ask("SET short lived PX 200") == "+OK"
                wait_until(lambda: line.ask("EXISTS short") == ":0")
            # While the child runs: one that is ended takes away the socket that it had, as it always does.
            with Line(both.path(both.a, "s")) as line:
                assert line.ask("DBSIZE") == f":{KEYS}"
                assert bulk(line, "GET key:1") == "later"


@pytest.mark.parametrize("hosts", ["here"], indirect=True)
def test_redis_on_another_port(both, redis_server):
    before, after = free_port(), free_port()
    options = ["--port", str(before), "--save", "", "--appendonly", "no"]
    with program(both, redis_server, *options, cwd=both.directory) as parent:
        assert inline(before, "SET colour green") == "+OK"
        handle = parent.prepare()
        with child(both, handle, "--listen", f"{before}={after}") as running:
            assert inline(after, "INCR counter", running) == ":1"
            assert inline(after, "STRLEN colour", running) == ":5"
        assert inline(before, "EXISTS counter") == ":0"


def test_nginx(both):
    """One process, with its log files and its listening socket."""
    at, anew = both.directory / "s", both.directory / "t"
    for host in {both.a, both.b}:
        both.path(host, "page.html").write_text(f"a page of {host.name}\n")
    config = both.path(both.a, "nginx.conf")
    config.write_text((PROGRAMS / "nginx.conf").read_text().replace("LISTEN", str(at)))
    argv = [NGINX, "-p", both.directory, "-c", both.directory / "nginx.conf", "-e", "error.log"]
    with program(both, *argv) as parent:
        socket_there = wait_for_socket(both.path(both.a, "s"))
        assert get(socket_there, "/page.html") == f"a page of {both.a.name}\n"
        handle = parent.prepare()
        with child(both, handle, "--listen", f"unix:{at}={anew}") as running:
            there = both.path(both.b, "t")
            told = get(there, "/told", running)
            # nginx asks for the host's name when it starts: it is the parent's.
            assert told == get(socket_there, "/told")
            assert get(there, "/page.html", running) == f"a page of {both.b.name}\n"
            for _ in range(20):
                assert get(there, "/told", running) == told
            # While the child runs: one that is ended takes away the socket that it had, as it always does.
            assert get(socket_there, "/page.html") == f"a page of {both.a.name}\n"


def get(path, url, running=None):
    """The body of a page from a server on a unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(ANSWER_LIMIT_S)
    connect(connection.sock, str(path), running)
    try:
        connection.request("GET", url)
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, (response.status, body)
        return body
    finally:
        connection.close()


def inline(port, command, running=None):
    """A Redis server's answer in one line, over TCP."""
    with socket.socket() as connection:
        connection.settimeout(ANSWER_LIMIT_S)
        connect(connection, ("127.0.0.1", port), running)
        connection.sendall(f"{command}\r\n".encode())
        return connection.makefile().readline().strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_socket(path):
    wait_until(path.exists)
    return path


def wait_until(condition):
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not so after {ANSWER_LIMIT_S} s"
        time.sleep(0.02)
