"""TLS: contexts cross a fork, connections and session tickets must not.

Two processes that went on with one connection would encrypt different bytes with the same nonces. In a child
its descriptor is closed, so that it fails; the child handshakes anew.
"""

import datetime
import os
import socket
import ssl
import sys
import tempfile
import threading

import mitosis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificate(directory: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = os.path.join(directory, "localhost.pem")
    with open(path, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.write(made.public_bytes(serialization.Encoding.PEM))
    return path


def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            while question := secured.recv(100):
                secured.sendall(question.upper())

    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


directory = tempfile.TemporaryDirectory()
path = certificate(directory.name)
listener = socket.create_server(("127.0.0.1", 0))
of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
of_server.load_cert_chain(path)
threading.Thread(target=serve, args=(listener, of_server), daemon=True).start()

context = ssl.create_default_context(cafile=path)  # warmed: certificates are read
connection: ssl.SSLSocket | None = None


def connect() -> None:
    global connection
    plain = socket.create_connection(listener_address)
    connection = context.wrap_socket(plain, server_hostname="localhost")


@mitosis.after_resume
def connect_in_child(resumed: mitosis.Resumed) -> None:
    connection.detach()  # the parent's: not shut down, not closed by a collector at some later time
    connect()


def ask(question: bytes) -> bytes:
    connection.sendall(question)
    return connection.recv(100)


listener_address = listener.getsockname()
connect()
assert ask(b"parent") == b"PARENT"
if (child := mitosis.fork(*sys.argv[1:])) is None:
    same = connection.session_reused
    os._exit(0 if ask(b"child") == b"CHILD" and not same else 1)
assert child.wait() == 0
assert ask(b"parent again") == b"PARENT AGAIN"
print("TLS: the context is shared, the connection is not")
