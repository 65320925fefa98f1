"""A connection to one address, and to no other: no proxy, no redirect, and no call that outlives its time."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlencode

from cachekit.bounded import Allowance, Bounded, BoundedTLS, allowed, resolve
from cachekit.errors import UsageError

_FAMILIES: Final = {
    "ip4": socket.AF_INET,
    "ip6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
}
_LARGEST_PORT: Final = 65_535


@dataclass(frozen=True)
class Address:
    """Where an RPC answers; `path` of a unix socket, or else `host` and `port`. `kind` is the first multiaddr word."""

    kind: str
    host: str = "localhost"
    port: int = 80
    path: str = ""
    secure: bool = False

    @classmethod
    def parse(cls, multiaddr: str) -> Address:
        """Read `/ip4/127.0.0.1/tcp/5001`, `/dns/host/tcp/443/https` or `/unix/path`; raises UsageError for others."""
        start, _, kind_and_rest = multiaddr.partition("/")
        kind, _, rest = kind_and_rest.partition("/")
        if not start and kind == "unix" and rest:
            return cls("unix", path="/" + unquote(rest).lstrip("/"))
        host, _, tail = rest.partition("/tcp/")
        port, _, scheme = tail.partition("/")
        known = not start and kind in _FAMILIES and scheme in ("", "http", "https", "tls/http")
        if not (known and host and "/" not in host and port.isdecimal() and 0 < int(port) <= _LARGEST_PORT):
            raise UsageError(f"not the address of an RPC: {multiaddr!r}; write it like /ip4/127.0.0.1/tcp/5001")
        return cls(kind, host, int(port), secure=scheme in ("https", "tls/http"))


class Dialer:
    """Opens sockets to `address`, to be used under `allowed`; a secure one verifies the host's certificate."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._tls: ssl.SSLContext | None = None

    def dial(self) -> socket.socket:
        """A connected socket; raises OSError of the last thing tried."""
        failure: OSError = ConnectionRefusedError(f"{self.address.host} has no address")
        for family, where in _places(self.address):
            try:
                return self._connected(family, where)
            except OSError as error:
                failure = error
        raise failure

    def _connected(self, family: int, where: Any) -> socket.socket:
        plain = Bounded(family, socket.SOCK_STREAM)
        try:
            plain.connect(where)
            if self.address.kind != "unix":
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self.address.secure:
                return plain
            return self._context().wrap_socket(plain, server_hostname=self.address.host)
        except OSError:
            plain.close()
            raise

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = ssl.create_default_context()
            context.sslsocket_class = BoundedTLS
            self._tls = context
        return self._tls


def _places(address: Address) -> list[tuple[int, Any]]:
    if address.kind == "unix":
        return [(socket.AF_UNIX, address.path)]
    family = _FAMILIES[address.kind]
    if address.kind.startswith("ip"):
        return [(family, (address.host, address.port))]
    return resolve(address.host, address.port, family)


class Answer(NamedTuple):
    """What came back, whatever the status."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Line:
    """A kept-alive connection for one thread of one process."""

    def __init__(self, dialer: Dialer, headers: Mapping[str, str]) -> None:
        self._connection = _Connection(dialer)
        self._headers = dict(headers)

    def post(self, call: str, options: Mapping[str, str], *, timeout: float, limit: int) -> Answer:
        """POST `call` and read all of the answer: `timeout` seconds in all, `limit` bytes and some framing.

        For calls that may be made twice: one is repeated when a kept connection turns out closed. Raises OSError,
        http.client.HTTPException, or IntegrityError for an answer that is far too long.
        """
        url = f"/api/v0/{call}?{urlencode(options)}"
        with allowed(timeout, limit) as left:
            try:
                response = self._ask(url, left)
                body = response.read()
            except BaseException:
                # What is left of this answer must never be read as the next one's.
                self.close()
                raise
        return Answer(response.status, response.headers, body)

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        self._connection.close()

    def _ask(self, url: str, left: Allowance) -> http.client.HTTPResponse:
        if self._connection.sock is not None and _readable(self._connection.sock):
            self._connection.close()
        kept = self._connection.sock is not None
        try:
            return self._send(url)
        except ConnectionError:
            if not kept or left.received:
                raise
            self._connection.close()
            return self._send(url)

    def _send(self, url: str) -> http.client.HTTPResponse:
        self._connection.request("POST", url, headers=self._headers)
        return self._connection.getresponse()


class _Connection(http.client.HTTPConnection):
    def __init__(self, dialer: Dialer) -> None:
        super().__init__(dialer.address.host, dialer.address.port)
        self._dialer = dialer

    def connect(self) -> None:
        self.sock = self._dialer.dial()


def _readable(kept: socket.socket) -> bool:
    # Before a question is asked, anything to be read is the end of the connection, or nobody's answer.
    poll = select.poll() if hasattr(select, "poll") else None
    if poll is None:
        return bool(select.select([kept], [], [], 0)[0])
    poll.register(kept, select.POLLIN)
    return bool(poll.poll(0))
