"""On host-a: a warm CPython is forked to the other guest by rc and by tcp in turns: rc_forks.py ROUNDS.

For each fork a line `forked FABRIC {"us": ...}`: from the request until the child, which sums an array, has
ended. The seed's bytes lie in the arena by then. host-b looks at its agent's counters before the seed goes:
it is told by files of the shared folder.
"""

import json
import os
import sys
import time
from pathlib import Path

import mitosis
import numpy as np

# 4 MiB, beside what CPython and numpy touch.
array = np.arange(512 << 10, dtype=np.int64)
TOTAL = int(array.sum())
# An emulator copies some 30 MB into the arena in less.
FILL_S = 1.5
shared = Path("/host")
HOSTS = {"rc": "host-b:7370", "tcp": "host-b:7380"}


def wait_for(path: Path) -> None:
    """The other host's answer."""
    while not path.exists():
        time.sleep(0.02)


def main() -> None:
    """All rounds; the first makes the connections, and is not counted."""
    rounds = int(sys.argv[1])
    for number in range(-1, rounds):
        for fabric in ("rc", "tcp") if number % 2 == 0 else ("tcp", "rc"):
            fork(fabric, number)


def fork(fabric: str, number: int) -> None:
    """By the agents of this fabric."""
    os.environ["MITOSIS_AGENT"] = f"/tmp/{fabric}.sock"
    me = mitosis.prepare()
    if isinstance(me, mitosis.Resumed):
        os._exit(0 if int(array.sum()) == TOTAL else 1)
    _ = me.handle
    time.sleep(FILL_S)
    begun = time.monotonic()
    status = mitosis.resume(me.handle, host=HOSTS[fabric]).wait()
    took = time.monotonic() - begun
    if status != 0:
        sys.exit(f"the child ended with {status}")
    if number >= 0:
        print("forked", fabric, json.dumps({"us": took * 1e6}), flush=True)
    (shared / f"{fabric}.{number}.ended").touch()
    wait_for(shared / f"{fabric}.{number}.counted")
    me.drop()


main()
