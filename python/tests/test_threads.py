"""threads="all": every thread goes on, in the process that prepares and in its children."""

import pytest
from test_prepare import silent  # noqa: F401 (a fixture)

from conftest import run

# Threads in a queue, a condition, a sleep, a lock; `answers` asks each whether it is alive and well.
THREADS = """
import queue, random, threading, time

asked, told = queue.Queue(), queue.Queue()
local = threading.local()
condition = threading.Condition()
turns = 0
over = False

def worker(number):
    local.number = number
    while (question := asked.get()) is not None:
        told.put((question, local.number, threading.current_thread().name))

def waiter():
    with condition:
        while not over:
            condition.wait()

def sleeper():
    global turns
    while not over:
        time.sleep(0.002)
        turns += 1

threads = [threading.Thread(target=worker, args=(n,), name=f"worker-{n}") for n in range(4)]
threads += [threading.Thread(target=waiter), threading.Thread(target=sleeper)]
for thread in threads:
    thread.start()

def answers():
    for question in range(8):
        asked.put(question)
    found = [told.get(timeout=10) for _ in range(8)]
    assert sorted(question for question, _, _ in found) == list(range(8)), found
    assert all(name == f"worker-{number}" for _, number, name in found), found
    before = turns
    deadline = time.monotonic() + 10
    while turns < before + 3:
        assert time.monotonic() < deadline, "the sleeper does not go on"
        time.sleep(0.001)

def end():
    global over
    over = True
    with condition:
        condition.notify_all()
    for _ in range(4):
        asked.put(None)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), thread
"""


def test_the_callers_threads_do_not_notice(silent):  # noqa: F811
    out = run(
        THREADS
        + """
import os, mitosis
mitosis.before_prepare(lambda: print("before_prepare"))
mitosis.after_prepare(lambda: print("after_prepare"))
os.register_at_fork(before=lambda: print("fork"), after_in_parent=lambda: print("fork"))
seed = mitosis.prepare(threads="all")
whole, parking = seed.pause
assert 0 < parking <= whole < 10**9, (whole, parking)
answers()
for _ in range(10):
    assert isinstance(mitosis.prepare(threads="all"), mitosis.Seed)
answers()
end()
assert mitosis.prepare().pause is None
""",
        env=silent,
    )
    assert out.splitlines() == ["before_prepare", "after_prepare"] * 11 + [
        "before_prepare",
        "fork",
        "fork",
        "after_prepare",
    ]


def test_what_threads_may_be(silent):  # noqa: F811
    run(
        """
        import mitosis
        for bad in ("some", None, 1, ""):
            for call in (mitosis.prepare, mitosis.fork):
                try:
                    call(threads=bad)
                except mitosis.ArgumentError as error:
                    assert "'caller' or 'all'" in str(error), error
                else:
                    raise AssertionError(bad)
        """,
        env=silent,
    )


def test_children_have_all_threads(agent):
    out = agent.run(
        THREADS
        + """
import mitosis
random.random()
with mitosis.prepare(threads="all") as me:
    if isinstance(me, mitosis.Resumed):
        answers()
        print("random", random.random(), flush=True)
        end()
        raise SystemExit(40 + me.index)
    children = mitosis.resume(me.handle, n=3)
    assert [child.wait() for child in children] == [40, 41, 42]
    answers()
    end()
"""
    )
    numbers = [line for line in out.splitlines() if line.startswith("random")]
    assert len(set(numbers)) == 3, out


def test_fork_with_a_pool_in_flight(agent):
    agent.run(
        """
        import time
        from concurrent.futures import ThreadPoolExecutor
        import mitosis

        def work(number):
            time.sleep(0.15)
            return number * number

        pool = ThreadPoolExecutor(4)
        futures = [pool.submit(work, number) for number in range(8)]
        time.sleep(0.02)
        child = mitosis.fork(threads="all")
        assert [future.result(timeout=10) for future in futures] == [n * n for n in range(8)]
        assert pool.submit(work, 9).result(timeout=10) == 81
        if child is None:
            raise SystemExit(7)
        assert child.wait() == 7
        """
    )


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_a_running_loop_of_asyncio(agent, where):
    call = "mitosis.prepare(threads='all')"
    if where == "thread":
        call = f"await asyncio.to_thread(lambda: {call})"
    agent.run(
        f"""
        import asyncio, time
        import mitosis

        async def main():
            ticks = 0
            async def tick():
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.005)
                    ticks += 1
            task = asyncio.create_task(tick())
            await asyncio.sleep(0.02)
            me = {call}
            before = ticks
            await asyncio.sleep(0.1)
            assert ticks > before + 2, (before, ticks)
            assert await asyncio.to_thread(lambda: 3) == 3
            task.cancel()
            return me

        me = asyncio.run(main())
        if isinstance(me, mitosis.Resumed):
            raise SystemExit(5)
        with me:
            assert mitosis.resume(me.handle).wait() == 5
        """
    )
