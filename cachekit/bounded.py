"""Sockets that cannot outlive a call: each operation gets what is left of the call's time and bytes, and no more."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from cachekit.errors import IntegrityError

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
    found: list[list[tuple[int, Any]] | OSError] = []

    def look() -> None:
        try:
            infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            found.append([(info[0], info[4]) for info in infos])
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=look, name="cachekit-resolve", daemon=True)
    thread.start()
    thread.join(_current.allowance.seconds())
    if not found:
        raise TimeoutError("the resolver did not answer in time")
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]
