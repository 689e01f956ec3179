"""asyncio: fork before a loop runs, or with all threads and files inside of one that does."""

import asyncio
import sys

import mitosis

host = sys.argv[1:]


async def count_to(number: int) -> int:
    for _ in range(number):
        await asyncio.sleep(0.001)
    return number


# Before a loop runs: each side runs one of its own.
if (child := mitosis.fork(*host)) is None:
    raise SystemExit(asyncio.run(count_to(3)))
assert child.wait() == 3


async def main() -> None:
    # In a running loop it is refused: the child would wait by descriptors that it does not have.
    try:
        mitosis.fork(*host)
    except mitosis.NotForkable as error:
        assert "threads='all'" in str(error)
    else:
        raise AssertionError("a loop was forked")

    # With all threads, which carries files, the loop goes on in the child, timers and tasks included.
    counting = asyncio.create_task(count_to(50))
    await asyncio.sleep(0.01)
    child = mitosis.fork(*host, threads="all")
    counted = await asyncio.wait_for(counting, 20)
    if child is None:
        # Connections of the parent's have ended here, as if the other side had closed them.
        raise SystemExit(counted)
    assert await asyncio.to_thread(child.wait) == 50


asyncio.run(main())
print("asyncio: a loop of its own, and the same loop in two processes")
