"""Functions of the FDKs, forked: each child is a container that answers as the agent demands."""

import json
import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fn_agent import CallTimeout, FunctionFailed, ResponseBroken
from fn_functions import node, python, wait_for, warmed
from worlds import ROOT


def told(agent, **asked):
    return json.loads(agent.call(json.dumps(asked).encode()).body)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_first_container_serves_though_it_was_prepared(warm):
    first = json.loads(warm.container.call(b'{"row": 2}').body)
    assert first["row"] == 2
    assert first["config"] == "from the first"


def test_a_child_is_a_container_of_its_own(warm, forked):
    first = json.loads(warm.container.call(b'{"row": 3}').body)
    child = told(forked, row=3)
    # The same model, which was loaded once and by the first.
    assert child["sum"] == first["sum"]
    assert child["loaded_at_ns"] == first["loaded_at_ns"]
    # What a container is told by its environment and its calls is its own.
    assert child["config"] == "from a child"
    assert child["call_id"] != first["call_id"]
    assert child["app"] == "id-of-app"
    assert child["function"] == "id-of-function"
    assert len(forked.containers) == 1
    assert forked.containers[0].pid != warm.container.pid


def test_children_share_no_random_numbers(forked):
    containers = [forked.launch() for _ in range(4)]
    drawn = {json.loads(container.call().body)["random"] for container in containers}
    assert len(drawn) == 4


def test_further_calls_find_the_state_of_earlier_ones(forked):
    first = told(forked)["calls"]
    assert [told(forked)["calls"] for _ in range(3)] == [first + 1, first + 2, first + 3]
    assert len(forked.containers) == 1


def test_calls_at_once_get_a_container_each(forked):
    """One call at a time: a container that is at work gets no other one."""
    with ThreadPoolExecutor() as pool:
        long = pool.submit(forked.call, b'{"sleep_s": 25}')
        wait_for(lambda: len(forked.containers) == 1)
        first, second = told(forked), told(forked)
        busy, free = forked.containers
        assert second["calls"] == first["calls"] + 1
        # The one that rests is frozen, and only that one.
        wait_for(lambda: free.frozen)
        assert not busy.frozen
        assert state(busy.pid) != "T"
        assert not long.done()
        busy.process.kill()
        with pytest.raises(ResponseBroken):
            long.result(20)
    assert busy.ended
    # The other one goes on.
    assert told(forked)["calls"] == second["calls"] + 1
    assert not free.ended


def test_headers_of_a_trigger_arrive(forked):
    answer = forked.http("GET", "http://example/a?b=c", X_Asked="yes")
    assert answer.headers["content-type"].startswith("application/json")
    child = json.loads(answer.body)
    assert (child["method"], child["url"]) == ("GET", "http://example/a?b=c")


def test_a_function_that_fails_goes_on(forked):
    with pytest.raises(FunctionFailed):
        told(forked, fail=True)
    told(forked)
    assert len(forked.containers) == 1


def test_a_call_past_its_deadline_ends_the_container(forked):
    with pytest.raises(CallTimeout):
        forked.call(b'{"sleep_s": 5}', limit_s=0.5)
    ended = forked.containers[0]
    assert ended.ended
    assert not ended.place.seen_by_agent.exists()
    told(forked)
    assert len(forked.containers) == 2


def test_a_container_that_rests_is_frozen_and_thawed(forked):
    told(forked)
    container = forked.containers[0]
    wait_for(lambda: container.frozen)
    wait_for(lambda: state(container.pid) == "T")
    time.sleep(1.2)  # past the agent's limit for a connection that rests, too
    told(forked)
    assert len(forked.containers) == 1


def test_a_frozen_container_is_ended_without_a_thaw(forked):
    container = forked.launch()
    container.freeze()
    container.end()
    assert not Path(f"/proc/{container.pid}").exists()


def test_a_frozen_seed_is_read_from(host, warm, forked):
    """What `docker pause` stops is all of the first container: the process and its seed."""
    (seed,) = [s for s in host.mitosis("ls")["seeds"] if s["parent_pid"] == warm.container.pid]
    stopped = (warm.container.pid, seed["pid"])
    container = forked.launch()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: {state(pid) for pid in stopped} == {"T"})
        before = host.mitosis("stats")
        rows = [json.loads(container.call(json.dumps({"row": r}).encode()).body) for r in range(99)]
        # A second container, too: it is made from the frozen seed.
        again = json.loads(forked.launch().call(b'{"row": 98}').body)
        after = host.mitosis("stats")
        assert {state(pid) for pid in stopped} == {"T"}
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert again["sum"] == rows[98]["sum"]
    assert after["misses"] > before["misses"], (before, after)
    assert json.loads(warm.container.call(b'{"row": 98}').body)["sum"] == rows[98]["sum"]


def test_children_outlive_the_first_container(warm, forked):
    container = forked.launch()
    sums = [json.loads(container.call(b'{"row": %d}' % row).body)["sum"] for row in range(2)]
    warm.container.end()
    again = [json.loads(container.call(b'{"row": %d}' % row).body)["sum"] for row in range(2)]
    assert again == sums
    # New ones come from its seed as before.
    assert json.loads(forked.launch().call(b'{"row": 1}').body)["sum"] == sums[1]


def test_twenty_containers_at_once(forked):
    containers = [forked.launch() for _ in range(20)]
    answers = [json.loads(container.call(b'{"row": 5}').body) for container in containers]
    assert len({answer["sum"] for answer in answers}) == 1
    assert len({container.pid for container in containers}) == 20


# Each sleeps in the first call behind those that its launcher warms it with: the rehearsal's.
SLEEPERS = {
    "python": """
import io, time
from fdk import response
calls = 0
def handler(ctx, data: io.BytesIO = None):
    global calls
    calls += 1
    if calls > 3:
        time.sleep(600)
    return response.Response(ctx, response_data="")
""",
    "node": """
let calls = 0
require('@fnproject/fdk').handle(async () => {
  calls++
  if (calls > 100) await new Promise((resolve) => setTimeout(resolve, 600_000))
  return ''
})
""",
}


def test_a_rehearsal_that_is_cut_leaves_nothing_behind(language, host, tmp_path, monkeypatch):
    # The rehearsal takes all that it may: this is no test of how long a start takes.
    monkeypatch.setattr("fn_agent.START_LIMIT_S", 60.0)
    make, suffix = {"python": (python, "py"), "node": (node, "js")}[language.name]
    function = tmp_path / f"sleeper.{suffix}"
    function.write_text(SLEEPERS[language.name])
    modules = ROOT / "examples/fn/node/node_modules"
    # Not below tmp_path: the path of a socket is short.
    with tempfile.TemporaryDirectory() as scratch:
        more = {"TMPDIR": scratch, "NODE_PATH": str(modules)}
        with warmed(make(function), host, **more):
            assert list(Path(scratch).iterdir()) == []
