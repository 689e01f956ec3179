"""A connection of sqlite3: closed before the fork, opened again on either side."""

import os
import sqlite3
import sys
import tempfile

import mitosis

PATH = os.path.join(tempfile.mkdtemp(), "orders.db")
connection: sqlite3.Connection | None = None


@mitosis.after_prepare
def connect() -> None:
    global connection
    connection = sqlite3.connect(PATH)


@mitosis.before_prepare
def disconnect() -> None:
    # SQLite's own rule: a connection is never carried across a fork. Its locks would be lost.
    connection.close()


@mitosis.after_resume
def connect_in_child(resumed: mitosis.Resumed) -> None:
    connect()


def add(what: str) -> None:
    with connection:
        connection.execute("INSERT INTO orders VALUES (?)", (what,))


connect()
with connection:
    connection.execute("CREATE TABLE orders (what)")
add("of the parent")
if (child := mitosis.fork(*sys.argv[1:])) is None:
    add("of the child")
    raise SystemExit(0)
assert child.wait() == 0
rows = connection.execute("SELECT what FROM orders ORDER BY what").fetchall()
assert rows == [("of the child",), ("of the parent",)], rows
os.unlink(PATH)
os.rmdir(os.path.dirname(PATH))
print("sqlite3: both have written")
