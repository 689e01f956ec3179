"""A warm CPython of one machine goes on as a process of another: story.py HOST."""

import os
import sys

import mitosis
import numpy as np

array = np.arange(1 << 20, dtype=np.int64)
nonce = os.urandom(16).hex()

if (child := mitosis.fork(sys.argv[1])) is None:
    print("child", os.uname().nodename, array.sum(), nonce, flush=True)
    sys.exit(42)

total = array.sum()
# The child's is as it was at the fork, however late it is copied or READ.
array[:] = 0
status = child.wait()
print("parent", os.uname().nodename, total, nonce)
sys.exit(0 if status == 42 else 1)
