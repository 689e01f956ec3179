"""Containers on a host that has neither the function nor its runtime (needs root): sealed hosts."""

import json
from functools import partial

import pytest
from fn_agent import FnAgent, Forked, Function, Place
from fn_functions import warmed
from worlds import sealed_hosts


def iofs(host, name):
    """A directory for sockets on `host`, as an agent there and its containers know it."""
    seen_by_agent = host.root / "run" / name
    seen_by_agent.mkdir()
    return Place(seen_by_agent, type(seen_by_agent)(f"/run/{name}"))


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
            # The first container is frozen, as an agent on A freezes it when it rests.
            warm.container.freeze()
            row = json.loads(other.call(b'{"row": 200}').body)
            warm.container.thaw()
    assert (first["host"], {answer["host"] for answer in answers}) == ("host-a", {"host-b"})
    assert {answer["sum"] for answer in [first, *answers]} == {first["sum"]}
    assert {answer["config"] for answer in answers} == {"from b"}
    assert row["row"] == 200
