"""Tests of the interpreter's that come out differently in a child, and why.

Each is (pattern of names, modes, reason). docs/python-tests.md is for people.
"""

DIFFERENCES: list[tuple[str, tuple[str, ...], str]] = [
    (
        "test_signal.PidfdSignalTest.test_pidfd_send_signal",
        ("all",),
        "it opens /proc/PID with its own number, and the child's /proc is the host's, where the child has another one "
        "(it is in a pid namespace of its own); /proc/self is right",
    ),
]
