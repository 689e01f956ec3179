"""HTTP clients that keep connections alive: requests (urllib3) and httpx let go of them in the child."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import mitosis
import requests


class Answers(BaseHTTPRequestHandler):
    """Says which connection, by its client's port, a question came on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}/"
session, client = requests.Session(), httpx.Client()


@mitosis.after_resume
def let_go(resumed: mitosis.Resumed) -> None:
    global client
    session.close()  # its pools are emptied, and fill again
    client = httpx.Client()  # one that is closed cannot be used again; keep how it was made


def ask() -> tuple[str, str]:
    return session.get(url, timeout=10).text, client.get(url, timeout=10).text


before = ask()
assert ask() == before, "connections are kept alive"
if (child := mitosis.fork(*sys.argv[1:])) is None:
    own = ask()
    raise SystemExit(0 if not set(own) & set(before) and ask() == own else 1)
assert child.wait() == 0
assert ask() == before, "and the parent's are as they were"
print("HTTP: the child has connections of its own, the parent keeps its own")
