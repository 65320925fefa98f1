"""A STAND-IN, not Kubo: a scripted HTTP server for the faults that no real daemon can be made to commit.

`serving(script)` listens on loopback; `script(exchange)` answers one request, and returns True to keep the connection.
A script never sleeps for an outcome: whatever lasts for ever ends when the `with` block does.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICK_SECONDS = 0.02


@dataclass
class Exchange:
    """One request, `line` its first line and `headers` by lower-case name, and the means to answer it badly."""

    socket: socket.socket
    line: str
    headers: dict[str, str]
    body: bytes
    over: threading.Event

    def send(self, data: bytes) -> None:
        """Write `data` as it is."""
        self.socket.sendall(data)

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> bool:
        """A well-formed answer."""
        self.send(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return True

    def json(self, told: Any, status: int = 200) -> bool:
        """A well-formed answer of JSON."""
        return self.answer(status, json.dumps(told).encode())

    def chunked(self, *parts: bytes, ended: bool = True, trailer: bytes = b"") -> bool:
        """A chunked 200; with a clean end, and `trailer` after it, or broken off."""
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            self.send(b"%x\r\n%s\r\n" % (len(part), part))
        if ended:
            self.send(b"0\r\n" + trailer + b"\r\n")
        return ended

    def drip(self, head: bytes, drop: bytes) -> bool:
        """`head` at once, then `drop` again and again, for ever."""
        self.send(head)
        while not self.over.wait(_TICK_SECONDS):
            self.send(drop)
        return False

    def silence(self) -> bool:
        """Nothing, for ever."""
        self.over.wait()
        return False

    def reset(self) -> bool:
        """A RST instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


Script = Callable[[Exchange], bool]


@dataclass
class StandIn:
    """The running server: its multiaddr, and what it was asked."""

    api: str
    listener: socket.socket
    lines: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0

    def leave(self) -> None:
        """Let nobody in any more."""
        # Closing a listener does not wake the thread that waits in accept().
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    """Serve `script` on a free loopback port, behind `tls` where it is given."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = StandIn(f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}", listener)
        threading.Thread(target=_accept, args=(listener, server, script, over, tls), daemon=True).start()
        try:
            yield server
        finally:
            over.set()
            server.leave()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The multiaddr of a port that lets connections in and never picks them up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"


def refusing() -> str:
    """The multiaddr of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"


def certificate(folder: Path) -> tuple[Path, Path]:
    """The files of a certificate for `localhost`, which nobody trusts yet, and of its key."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files


def _accept(
    listener: socket.socket, server: StandIn, script: Script, over: threading.Event, tls: ssl.SSLContext | None
) -> None:
    while not over.is_set():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        server.connections += 1
        threading.Thread(target=_converse, args=(connection, server, script, over, tls), daemon=True).start()


def _converse(
    plain: socket.socket, server: StandIn, script: Script, over: threading.Event, tls: ssl.SSLContext | None
) -> None:
    # The client may leave at any moment; that is what many a test is about.
    with plain, contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        connection = stack.enter_context(tls.wrap_socket(plain, server_side=True)) if tls else plain
        reader = stack.enter_context(connection.makefile("rb"))
        while line := reader.readline().decode().strip():
            headers = _headers(reader)
            body = _body(reader, headers)
            server.lines.append(line)
            server.headers.append(headers)
            if not script(Exchange(connection, line, headers, body, over)):
                return


def _headers(reader: Any) -> dict[str, str]:
    headers = {}
    while line := reader.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _body(reader: Any, headers: dict[str, str]) -> bytes:
    body: bytes = reader.read(int(headers.get("content-length", "0")))
    if headers.get("transfer-encoding") == "chunked":
        while size := int(reader.readline() or b"0", 16):  # a client that left in the middle says no more
            body += reader.read(size + 2)[:size]
        reader.readline()
    return body
