"""CPython with live threads, which knows nothing of Mitosis: all of them go on in each child.

Prints "ready" once its threads are at work, and at its end, in the parent and in each child, what they made.
"""

import concurrent.futures
import json
import queue
import sys
import threading
import time

QUEUE_WORKERS = 4
POOL_WORKERS = 3
IN_FLIGHT = 6
STEPS = 60
STEP_S = 0.05
TASKS = 200

tasks, results = queue.Queue(), queue.Queue()
own = threading.local()
turn = threading.Condition()
ticks = 0


def queue_worker(number):
    """Waits for tasks; counts its own in memory of its own thread."""
    own.number, own.done = number, 0
    while (task := tasks.get()) is not None:
        own.done += 1
        results.put((task, task * task, own.number))
    results.put((None, own.done, own.number))


def in_flight(number):
    """A task that is in the middle when the process is forked, half in computation, half asleep."""
    ident, native = threading.get_ident(), threading.get_native_id()
    total = 0
    for step in range(STEPS):
        total += sum(i * number for i in range(2000)) + step
        time.sleep(STEP_S)
        assert threading.get_ident() == ident
        assert threading.get_native_id() == native, "the thread has another id now"
    return total


def ticker():
    """Wakes the main thread by a condition variable."""
    global ticks
    while True:
        time.sleep(0.01)
        with turn:
            ticks += 1
            turn.notify_all()


def main():
    workers = [threading.Thread(target=queue_worker, args=(n,)) for n in range(QUEUE_WORKERS)]
    for worker in workers:
        worker.start()
    threading.Thread(target=ticker, daemon=True).start()
    with concurrent.futures.ThreadPoolExecutor(POOL_WORKERS) as pool:
        futures = [pool.submit(in_flight, number) for number in range(IN_FLIGHT)]
        for task in range(TASKS):
            tasks.put(task)
        time.sleep(0.2)
        print("ready", flush=True)
        flown = [future.result(timeout=60) for future in futures]
    for task in range(TASKS, 2 * TASKS):
        tasks.put(task)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join(timeout=20)
        assert not worker.is_alive()
    got = [results.get_nowait() for _ in range(results.qsize())]
    with turn:
        before = ticks
        assert turn.wait_for(lambda: ticks > before + 3, timeout=10), "nobody wakes the main thread"
    done = sorted((task, value) for task, value, _ in got if task is not None)
    counted = sum(value for task, value, _ in got if task is None)
    # A thread that was started before and one that is started now.
    late = queue.Queue()
    threading.Thread(target=lambda: late.put("late")).start()
    print(
        json.dumps(
            {
                "flown": flown,
                "done": done == [(n, n * n) for n in range(2 * TASKS)],
                "counted": counted,
                "late": late.get(timeout=10),
            }
        ),
        flush=True,
    )


main()
sys.exit(5)
