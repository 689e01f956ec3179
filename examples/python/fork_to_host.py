"""A process goes on as a process of another host: fork_to_host.py [HOST].

Without HOST it forks onto this machine, with an agent of its own if none runs.
"""

import os
import sys

import mitosis

words = {"state": "built before the fork", "secret": os.urandom(8).hex()}

if (child := mitosis.fork(sys.argv[1] if len(sys.argv) > 1 else None)) is None:
    print(f"child on {os.uname().nodename}: {words}")
    sys.exit(len(words))

status = child.wait()
print(f"parent on {os.uname().nodename}: {words}; the child on {child.host} ended with {status}")
sys.exit(0 if status == len(words) else 1)
