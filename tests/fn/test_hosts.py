"""Containers on a host that has neither the function nor its runtime (needs root): sealed hosts."""

import contextlib
import json
import subprocess
from functools import partial

import pytest
from fn_agent import FnAgent, Forked, Function, Place
from fn_functions import wait_for, warmed
from worlds import sealed_hosts

# Rows of the model that no call before has asked for.
UNSEEN = range(150, 250)


def iofs(host, name):
    """A directory for sockets on `host`, as an agent there and its containers know it."""
    seen_by_agent = host.root / "run" / name
    seen_by_agent.mkdir()
    return Place(seen_by_agent, type(seen_by_agent)(f"/run/{name}"))


@contextlib.contextmanager
def frozen(host, pid):
    """What `docker pause` stops of the container whose process on `host` is `pid`: that, and its seed."""
    seeds = host.mitosis("ls")["seeds"]
    (seed,) = [seed["pid"] for seed in seeds if seed["parent_pid"] == pid]
    on_host(host, "kill -STOP", pid, seed)
    try:
        wait_for(lambda: states(host, pid, seed) == {"T"})
        yield
        assert states(host, pid, seed) == {"T"}
    finally:
        on_host(host, "kill -CONT", pid, seed)


def states(host, *pids):
    stats = on_host(host, "cat", *(f"/proc/{pid}/stat" for pid in pids)).splitlines()
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


def on_host(host, command, *operands):
    """The output of a command of the shell's, with these operands, on `host`."""
    line = " ".join([command, *map(str, operands)])
    return subprocess.run(
        host.command("sh", "-c", line), stdout=subprocess.PIPE, text=True, timeout=20, check=True
    ).stdout


@pytest.fixture(scope="module")
def hosts():
    with sealed_hosts() as hosts, pytest.MonkeyPatch.context() as patch:
        a = hosts[0]
        # This process asks A's agent, as a scheduler on A would.
        patch.setenv("MITOSIS_AGENT", str(a.root / str(a.socket).lstrip("/")))
        yield hosts


def test_containers_on_host_b(language, hosts):
    a, b = hosts
    assert not list((b.root / "usr/bin").glob("python*"))
    assert not (b.root / "usr/bin/node").exists()
    with warmed(language, a, iofs(a, f"iofs-{language.name}")) as warm:
        first = json.loads(warm.container.call(b'{"row": 6}').body)
        function = Function(config={"GREETING": "from b"})
        launch = partial(Forked, warm.handle, host="host-b")
        with FnAgent(function, launch, iofs=iofs(b, f"iofs-{language.name}")) as agent:
            answers = [json.loads(agent.call(b'{"row": 6}').body) for _ in range(3)]
            other = agent.launch()
            answers.append(json.loads(other.call(b'{"row": 6}').body))
            with frozen(a, first["pid"]):
                before = b.mitosis("stats")["misses"]
                rows = [json.loads(other.call(b'{"row": %d}' % r).body)["row"] for r in UNSEEN]
                read = b.mitosis("stats")["misses"] - before
    assert (first["host"], {answer["host"] for answer in answers}) == ("host-a", {"host-b"})
    assert {answer["sum"] for answer in [first, *answers]} == {first["sum"]}
    assert {answer["config"] for answer in answers} == {"from b"}
    assert rows == list(UNSEEN)
    # What these rows touch was neither given ahead nor read before: it came out of the frozen seed.
    assert read > 0
