"""Tests of the interpreter's that come out differently in a child, and why.

Each is (pattern of names, modes, reason). docs/python-tests.md is for people.
"""

DIFFERENCES: list[tuple[str, tuple[str, ...], str]] = []
