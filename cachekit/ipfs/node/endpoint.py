"""A small HTTP server for those who watch: what each path answers is made when it is asked for, for all who ask at once."""

from __future__ import annotations

import contextlib
import http.server
import logging
import re
import socket
import socketserver
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from cachekit.errors import UsageError

log: Final = logging.getLogger("cachekit")
DEFAULT: Final = ("127.0.0.1", 9559)
_RECENT_SECONDS: Final = 1.0
_CLIENT_SECONDS: Final = 5.0
_MOST_CLIENTS: Final = 8
_WAY: Final = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):)?(?P<port>\d{1,5})")


class Answer(NamedTuple):
    """What a path answers."""

    status: int
    kind: str
    body: bytes


def place(text: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`, `[IPv6]:PORT`, `:PORT` or `PORT`; loopback where no host is named. Raises UsageError."""
    found = _WAY.fullmatch(text)
    if found is None or int(found["port"]) > 65_535:
        raise UsageError(f"{text!r} is no HOST:PORT, such as {DEFAULT[0]}:{DEFAULT[1]}")
    return (found["host"] or DEFAULT[0]).strip("[]"), int(found["port"])


class Endpoint:
    """Serves `answers`, by path, at `where` until it is closed. Raises UsageError where it cannot listen there."""

    def __init__(self, where: tuple[str, int], answers: Mapping[str, Callable[[], Answer]]) -> None:
        try:
            self._server = _Server(where, {path: _Recent(make) for path, make in answers.items()})
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"nothing can listen at {where[0]}:{where[1]} ({error}); name another HOST:PORT"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="cachekit-metrics")
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens, such as http://127.0.0.1:9559."""
        host, port = map(str, self._server.server_address[:2])
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Recent:
    """Makes an answer once for all who ask within a second: who asks often asks the node no oftener."""

    def __init__(self, make: Callable[[], Answer]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._answer = Answer(503, "text/plain", b"")

    def __call__(self) -> Answer:
        with self._lock:
            if time.monotonic() >= self._until:
                self._answer = self._make()
                self._until = time.monotonic() + _RECENT_SECONDS
            return self._answer


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, where: tuple[str, int], answers: Mapping[str, _Recent]) -> None:
        self.answers = answers
        self._clients = deque[socket.socket]()
        if ":" in where[0]:
            self.address_family = socket.AF_INET6
        super().__init__(where, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, and waits for a name server that may be none.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = map(str, self.server_address[:2])  # type: ignore[assignment]

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        threading.current_thread().name = "cachekit-scrape"
        self._clients.append(request)
        if len(self._clients) > _MOST_CLIENTS:
            # Who sends a byte now and then keeps nobody out: the one who has been here longest goes.
            with contextlib.suppress(IndexError, OSError):
                self._clients.popleft().shutdown(socket.SHUT_RDWR)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with contextlib.suppress(ValueError):
                self._clients.remove(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event; what else there is stands in the log for who looks for it."""
        log.debug("an answer was not given", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "cachekit", ""
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        made = self.server.answers.get(self.path.partition("?")[0])
        status, kind, body = Answer(404, "text/plain", b"/healthz or /metrics\n") if made is None else made()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads who asked."""
