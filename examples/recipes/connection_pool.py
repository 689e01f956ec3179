"""A pool of connections with a thread that looks after them, as psycopg_pool's: closed and opened around a fork.

With psycopg_pool the two hooks are `pool.close()` and `pool = ConnectionPool(...)`: a pool that was closed is not
opened again.
"""

import queue
import socket
import socketserver
import sys
import threading

import mitosis


class Pool:
    """Connections to a server, checked now and then by a thread."""

    def __init__(self, address: tuple[str, int], size: int) -> None:
        self._idle: queue.Queue[socket.socket] = queue.Queue()
        for _ in range(size):
            self._idle.put(socket.create_connection(address))
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def ask(self, question: bytes) -> bytes:
        connection = self._idle.get()
        try:
            connection.sendall(question + b"\n")
            return connection.makefile("rb").readline().rstrip()
        finally:
            self._idle.put(connection)

    def close(self) -> None:
        self._over.set()
        self._keeper.join()
        while not self._idle.empty():
            self._idle.get().close()

    def _keep(self) -> None:
        while not self._over.wait(0.05):
            assert self.ask(b"alive?") == b"ALIVE?"


class Shouts(socketserver.StreamRequestHandler):
    """The data base of this example."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Shouts)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
pool = Pool(server.server_address, size=3)


@mitosis.before_prepare
def close_pool() -> None:
    # Before, not in the child: there its thread is gone, and whatever lock it held is held for ever.
    pool.close()


@mitosis.after_prepare
def open_pool() -> None:
    global pool
    pool = Pool(server.server_address, size=3)


@mitosis.after_resume
def open_pool_in_child(resumed: mitosis.Resumed) -> None:
    open_pool()


assert pool.ask(b"parent") == b"PARENT"
if (child := mitosis.fork(*sys.argv[1:])) is None:
    raise SystemExit(0 if pool.ask(b"child") == b"CHILD" else 1)
assert child.wait() == 0
assert pool.ask(b"parent") == b"PARENT"
pool.close()
print("pool: each process asks on connections of its own")
