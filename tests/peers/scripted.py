"""A STAND-IN, no vendor's server: HTTP on loopback that answers what a script says, for what no real peer can be made to do.

`scripted_server(script)` counts and keeps the requests. The bodies in the vendors' shapes are in `shapes`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request as it came: `path` with its query, `headers` by lower-case name."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer. `body` is bytes, or pieces sent one by one: a generator may wait between them for a test's event.

    `framing` says how the body's end is told: "length" (only for bytes), "chunked", or "close", where a lost connection
    and the end look alike. `cut` breaks the connection after so many bytes of the body, `reset` does so with a RST; for
    a truncated body that ends in good order, pass a shorter body.
    """

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    framing: str = "length"
    cut: int | None = None
    reset: bool = False


Script = Reply | Sequence[Reply] | Callable[[Request], Reply]


@dataclass
class Scripted:
    """The running stand-in: `url` without a trailing slash, and every request it got, in order."""

    url: str
    requests: list[Request] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many requests came."""
        return len(self.requests)


@contextlib.contextmanager
def scripted_server(script: Script) -> Iterator[Scripted]:
    """Answer with `script`: one Reply for ever, several one after the other (then the last), or a function's."""
    server = _Http(("127.0.0.1", 0), _Handler)
    server.scripted = Scripted(f"http://127.0.0.1:{server.server_address[1]}")
    server.script = script
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.scripted
    finally:
        server.shutdown()
        server.hang_up()
        server.server_close()
        thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    scripted: Scripted
    script: Script

    def __init__(self, *arguments: Any) -> None:
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def reply(self, request: Request) -> Reply:
        with self.lock:
            self.scripted.requests.append(request)
            at = self.scripted.count - 1
        if callable(self.script):
            return self.script(request)
        replies = [self.script] if isinstance(self.script, Reply) else self.script
        return replies[min(at, len(replies) - 1)]

    def hang_up(self) -> None:
        """Wake the threads that wait for a next request."""
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client may leave at any moment, and a script's own failure shows in its test as a lost reply."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http  # pyright: ignore[reportIncompatibleVariableOverride] - it is never another one

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.reply(Request(self.command, self.path, headers, self._body(headers)))
        self._send(reply)
        if reply.cut is not None or reply.framing == "close":
            self.close_connection = True
        if reply.reset:
            self.close_connection = True
            # A RST instead of an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    do_GET = do_DELETE = do_PUT = do_HEAD = do_POST

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, reply: Reply) -> None:
        framing = "chunked" if reply.framing == "length" and not isinstance(reply.body, bytes) else reply.framing
        pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
        head = self._head(reply, framing)
        if isinstance(reply.body, bytes) and reply.cut is None and framing != "chunked":
            self.wfile.write(head + reply.body)
            return
        self.wfile.write(head)
        left = reply.cut
        for piece in pieces:
            sent = piece if left is None else piece[:left]
            left = None if left is None else left - len(sent)
            if sent:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if framing == "chunked" else sent)
            if left == 0:
                return
        if framing == "chunked" and reply.cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, reply: Reply, framing: str) -> bytes:
        headers = {"content-type": reply.kind, **reply.headers}
        if framing == "length":
            assert isinstance(reply.body, bytes)
            headers["content-length"] = str(len(reply.body))
        elif framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        else:
            headers["connection"] = "close"
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode()
