"""An engine of SQLAlchemy: its pool is forgotten in the child, and fills again with its own connections."""

import os
import sys
import tempfile

import mitosis
from sqlalchemy import create_engine, text

PATH = os.path.join(tempfile.mkdtemp(), "orders.db")
engine = create_engine(f"sqlite:///{PATH}")


@mitosis.after_resume
def forget_connections(resumed: mitosis.Resumed) -> None:
    # As SQLAlchemy says for os.fork(): the pool's connections stay the parent's, and are not closed here.
    engine.dispose(close=False)


with engine.begin() as connection:
    connection.execute(text("CREATE TABLE orders (what TEXT)"))
if (child := mitosis.fork(*sys.argv[1:])) is None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO orders VALUES ('of the child')"))
    raise SystemExit(0)
assert child.wait() == 0
with engine.begin() as connection:
    assert connection.execute(text("SELECT what FROM orders")).scalar_one() == "of the child"
engine.dispose()
os.unlink(PATH)
os.rmdir(os.path.dirname(PATH))
print("SQLAlchemy: the pool's connections are each process's own")
