"""gRPC: its threads and connections do not cross a fork. Channels are closed before, and made again."""

import subprocess
import sys

import grpc
import mitosis

SERVER = """
import grpc, sys
from concurrent import futures
shout = grpc.unary_unary_rpc_method_handler(lambda request, context: request.upper())
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Example", {"Shout": shout}),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"""

server = subprocess.Popen(
    [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
address = f"127.0.0.1:{server.stdout.readline().strip()}"
channel: grpc.Channel | None = None


@mitosis.after_prepare
def connect() -> None:
    global channel
    channel = grpc.insecure_channel(address)


@mitosis.before_prepare
def disconnect() -> None:
    channel.close()


@mitosis.after_resume
def connect_in_child(resumed: mitosis.Resumed) -> None:
    connect()


def shout(what: bytes) -> bytes:
    return channel.unary_unary("/Example/Shout")(what, timeout=20)


connect()
assert shout(b"parent") == b"PARENT"
if (child := mitosis.fork(*sys.argv[1:])) is None:
    raise SystemExit(0 if shout(b"child") == b"CHILD" else 1)
assert child.wait() == 0
assert shout(b"parent again") == b"PARENT AGAIN"
channel.close()
server.stdin.close()
server.wait()
print("gRPC: a channel for each process")
