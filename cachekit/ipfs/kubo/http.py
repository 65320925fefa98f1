"""A connection to one address, and to no other: no proxy, no redirect, and no call that outlives its time.

Each operation of a socket gets what is left of its call's time and bytes, and no more.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlencode

from cachekit.errors import IntegrityError, UsageError
from cachekit.ipfs.kubo.answers import reject_refusal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


_FRAMING_BYTES: Final = 64 << 10


class Allowance:
    """What a call may still use: time until `at`, a reading of `time.monotonic`, and `room` bytes to receive."""

    __slots__ = ("at", "received", "room")

    def __init__(self, seconds: float, room: int) -> None:
        self.at = time.monotonic() + seconds
        self.room = room
        self.received = 0

    def seconds(self) -> float:
        """What is left, above 0; raises TimeoutError where nothing is."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time allowed for the call is over")
        return left

    def took(self, size: int) -> int:
        """Count `size` received bytes; raises IntegrityError beyond the room."""
        self.received += size
        if self.received > self.room:
            raise IntegrityError(f"the answer is longer than the {self.room} bytes it may have", reason="oversized")
        return size


class _Current(threading.local):
    # Whoever uses a socket outside a call gets no time at all.
    allowance = Allowance(0.0, 0)


_current = _Current()


@contextlib.contextmanager
def allowed(seconds: float, limit: int) -> Iterator[Allowance]:
    """Bound everything this thread's sockets do inside: `seconds` in all, `limit` bytes of body and some framing."""
    before = _current.allowance
    _current.allowance = Allowance(seconds, limit + limit // 8 + _FRAMING_BYTES)
    try:
        yield _current.allowance
    finally:
        _current.allowance = before


class Bounded(socket.socket):
    """A socket that does nothing outside `allowed`."""

    # A socket's own timeout starts anew with every byte that drips in; the allowance does not.
    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(_current.allowance.seconds())
        got = super().recv_into(buffer, nbytes or memoryview(buffer).nbytes, flags)
        return _current.allowance.took(got)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.settimeout(_current.allowance.seconds())
        super().sendall(data, flags)

    def connect(self, addr: Any) -> None:
        self.settimeout(_current.allowance.seconds())
        super().connect(addr)

    def __del__(self) -> None:
        # A thread that ends takes its connection with it; that is no leak to warn about.
        self.close()


class BoundedTLS(Bounded, ssl.SSLSocket):
    """The same, encrypted: for `SSLContext.sslsocket_class`."""

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        self.settimeout(_current.allowance.seconds())
        return super().send(data, flags)

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(_current.allowance.seconds())
        super().do_handshake(block)


def resolve(host: str, port: int, family: int) -> list[tuple[int, Any]]:
    """(family, socket address) pairs of `host`; raises OSError, TimeoutError among them."""
    # The resolver takes no timeout, and a hung one would take half a minute of the caller's.
    outcome: list[list[tuple[int, Any]] | OSError] = []

    def look() -> None:
        try:
            infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            outcome.append([(info[0], info[4]) for info in infos])
        except OSError as error:
            outcome.append(error)
        except UnicodeError as error:  # a label that no name can have
            outcome.append(socket.gaierror(str(error)))

    thread = threading.Thread(target=look, name="cachekit-resolve", daemon=True)
    thread.start()
    thread.join(_current.allowance.seconds())
    addresses = outcome[0] if outcome else TimeoutError("the resolver did not answer in time")
    if isinstance(addresses, OSError):
        raise addresses
    return addresses


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
        if not (
            known
            and host
            and "/" not in host
            and port.isdecimal()
            and len(port) <= 5
            and 0 < int(port) <= _LARGEST_PORT
        ):
            raise UsageError(f"not the address of an RPC: {multiaddr!r}; write it like /ip4/127.0.0.1/tcp/5001")
        return cls(kind, host, int(port), secure=scheme in ("https", "tls/http"))


class Dialer:
    """Opens sockets to `address`, to be used under `allowed`; a secure one verifies the host's certificate.

    `headers` go with every request there.
    """

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self.address = address
        self.headers = headers
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


class Connection(http.client.HTTPConnection):
    """HTTP over what a dialer dials."""

    def __init__(self, dialer: Dialer) -> None:
        super().__init__(dialer.address.host, dialer.address.port)
        self._dialer = dialer

    def connect(self) -> None:
        self.sock = self._dialer.dial()

    def begin(self, call: str, options: Mapping[str, str], headers: Mapping[str, str], body: bytes = b"") -> None:
        """POST a call of the RPC, or the beginning of one whose `headers` speak of more."""
        url = f"/api/v0/{call}?{urlencode(options)}"
        self.request("POST", url, body, {**self._dialer.headers, **headers})


class KeptConnection:
    """A kept-alive connection for one thread of one process."""

    def __init__(self, dialer: Dialer, connection: type[Connection] = Connection) -> None:
        self._connection = connection(dialer)

    def post(self, call: str, options: Mapping[str, str], *, timeout: float, limit: int) -> bytes:
        """POST `call` and read all of the answer: `timeout` seconds in all, at most `limit` bytes.

        For calls that may be made twice: one is repeated when a kept connection turns out closed. Raises OSError,
        http.client.HTTPException, or the TierError of what was answered.
        """
        response, body = self.exchange(call, options, timeout=timeout, limit=limit)
        reject_refusal(response, body)
        return within(body, limit)

    def exchange(
        self, call: str, options: Mapping[str, str], *, timeout: float, limit: int
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The same for an answer that nobody judged yet; `limit` bytes and a little more."""
        with allowed(timeout, limit) as allowance:
            try:
                response = self._answered(call, options, allowance)
                return response, response.read()
            except BaseException:
                # What is left of this answer must never be read as the next one's.
                self.close()
                raise

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        self._connection.close()

    def _answered(self, call: str, options: Mapping[str, str], allowance: Allowance) -> http.client.HTTPResponse:
        if self._connection.sock is not None and _readable(self._connection.sock):
            self._connection.close()
        kept = self._connection.sock is not None
        try:
            self._connection.begin(call, options, {})
            return self._connection.getresponse()
        except ConnectionError:
            if not kept or allowance.received:
                raise
            self._connection.close()
            return self._answered(call, options, allowance)


def within(body: bytes, limit: int) -> bytes:
    """`body`, which may have `limit` bytes, or IntegrityError."""
    if len(body) > limit:
        raise IntegrityError(f"the answer is longer than the {limit} bytes it may have", reason="oversized")
    return body


def _readable(kept: socket.socket) -> bool:
    # Before a question is asked, anything to be read is the end of the connection, or nobody's answer.
    poll = select.poll() if hasattr(select, "poll") else None
    if poll is None:
        return bool(select.select([kept], [], [], 0)[0])
    poll.register(kept, select.POLLIN)
    return bool(poll.poll(0))
