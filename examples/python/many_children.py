"""One warm process, many children, each with a piece of the work: many_children.py [HOST]."""

import os
import random
import sys

import mitosis

CHILDREN = 8


@mitosis.after_resume
def greet(me: mitosis.Resumed) -> None:
    """Run in each child before anything else of it does: the place to open connections anew."""
    os.environ["WORKER"] = str(me.index)


numbers = [random.random() for _ in range(100_000)]  # warm state: computed once, in every child

with mitosis.prepare() as me:
    if isinstance(me, mitosis.Resumed):
        mine = numbers[me.index :: CHILDREN]
        worker = os.environ["WORKER"]
        print(f"{me.payload.decode()} {worker}: {sum(mine):.1f}, dice {random.randint(1, 6)}")
        sys.exit(0)

    host = sys.argv[1] if len(sys.argv) > 1 else None
    children = mitosis.resume(me.handle, host, n=CHILDREN, payload=b"worker")
    assert isinstance(children, list)
    failed = [child for child in children if child.wait() != 0]

print(f"sum {sum(numbers):.1f}")
sys.exit(1 if failed else 0)
