"""Runs a function of the Fn project that can be forked: `python launch.py func.py [handler]`.

In the place of `fdk func.py handler`, the entry point of a function's image. It imports the function, calls
it through the FDK's own server, and prepares; only then does it listen on FN_LISTENER. So its seed holds no
socket and no event loop, and a child of it is a new container of the same function, which listens where *its*
FN_LISTENER says. A call in the rehearsal has each child given ahead what one touches.

    MITOSIS_FN_HANDLE     the file that the seed's handle is written to (mode 600); not set: nothing is prepared
    MITOSIS_FN_WARM_BODY  the body of the warming calls; empty if not set
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import sys
import tempfile
from contextlib import suppress

import fdk
import mitosis
from fdk import constants, customer_code, event_handler
from fdk.async_http import app, router

# The first call imports what the FDK and the function import late, the next ones fill caches.
WARM_CALLS = 3


def main() -> None:
    """Warm, prepare, and serve: the process itself, and each child."""
    path, *entrypoint = sys.argv[1:]
    function = customer_code.Function(path, *entrypoint)
    handle_file = os.environ.pop("MITOSIS_FN_HANDLE", None)
    if handle_file is not None:
        prepare(function, handle_file)
    fdk.handle(function)


def prepare(function: customer_code.Function, handle_file: str) -> None:
    """Warm it, and make the seed; returns here, and in each child."""
    body = os.environ.pop("MITOSIS_FN_WARM_BODY", "").encode()
    # What a rehearsal makes in it is removed here: it may be cut short, and is over when the handle is there.
    scratch = tempfile.mkdtemp(prefix="fn-warm-")
    me = None
    try:
        warm(function, body, WARM_CALLS, scratch)
        mitosis.rehearse(lambda: warm(function, body, 1, scratch))
        # What is there now is never garbage: a collection in a child need not touch, and copy, all of it.
        gc.collect()
        gc.freeze()
        me = mitosis.prepare()
        if isinstance(me, mitosis.Resumed):
            refresh()
        else:
            publish(me, handle_file)
    finally:
        if not isinstance(me, mitosis.Resumed):
            shutil.rmtree(scratch)


def warm(function: customer_code.Function, body: bytes, count: int, scratch: str) -> None:
    """Some calls over a socket of the function's own, below `scratch`, served as fdk.start serves them."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{directory}/{constants.FN_LISTENER}")
        routes = router.Router()
        routes.add("/call", frozenset({"POST"}), event_handler.event_handle(function))
        start_serving, serve_forever = app.AsyncHTTPServer(name="fdk", router=routes).run(
            sock=listener
        )
        start_serving()
        loop = asyncio.get_event_loop()
        calls = loop.create_task(_call(listener.getsockname(), body, count))
        calls.add_done_callback(lambda _: loop.stop())
        # A loop that is stopped ends what it runs by this error, and the FDK then cleans up.
        with suppress(RuntimeError):
            serve_forever()
        asyncio.set_event_loop(asyncio.new_event_loop())
        calls.result()


async def _call(path: str, body: bytes, count: int) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    for _ in range(count):
        writer.write(
            b"POST /call HTTP/1.1\r\nHost: localhost\r\nFn-Call-Id: warm\r\n"
            b"Fn-Deadline: 2100-01-01T00:00:00Z\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if b"content-length" in line)
        answer = await reader.readexactly(length)
        if b" 200 " not in status:
            raise SystemExit(f"the function fails a warming call: {answer.decode(errors='replace')}")
    writer.close()
    await writer.wait_closed()


def refresh() -> None:
    """What the FDK reads from the environment when it is imported, which was the seed's."""
    event_handler.fn_logframe_name = os.environ.get(constants.FN_LOGFRAME_NAME)
    event_handler.fn_logframe_hdr = os.environ.get(constants.FN_LOGFRAME_HDR)


def publish(seed: mitosis.Seed, path: str) -> None:
    """Write the handle, whole or not at all: whoever reads it can make containers."""
    new = f"{path}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(seed.handle.reveal())
    os.replace(new, path)


if __name__ == "__main__":
    main()
