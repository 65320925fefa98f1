"""What is too large for one answer: files sent to Kubo and read from it piece by piece, in constant memory.

A stream has a connection of its own, and no deadline: only a peer that moves nothing for `idle` seconds ends it.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import CHUNK_BYTES
from cachekit.ipfs.kubo.answers import boundary, reject_refusal
from cachekit.ipfs.kubo.http import Connection, Dialer, allowed

_OK: Final = 200
_ANSWER_BYTES: Final = 64 << 10
_BUFFER_BYTES: Final = 256 << 10
PINNED_PER_SECOND: Final = 20 << 20
"""How slow a disk may be: Kubo reads all of a file once more to pin it, and says nothing meanwhile."""


def upload(
    dialer: Dialer,
    call: str,
    options: Mapping[str, str],
    pieces: Iterable[bytes],
    *,
    size: int,
    idle: float,
    until: float = math.inf,
) -> bytes:
    """POST `pieces`, `size` bytes together, as the one file of a form; what was answered.

    `until`, an instant of `time.monotonic`, ends every wait. Raises TierError, and what `pieces` raise.
    """

    def within(seconds: float) -> float:
        return min(seconds, until - time.monotonic())

    mark = secrets.token_hex(16)
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    tail = f"\r\n--{mark}--\r\n"
    headers = {
        "Content-Type": f"multipart/form-data; boundary={mark}",
        # Not chunked: of a body that breaks off, Kubo then knows that it did.
        "Content-Length": str(len(head) + size + len(tail)),
    }
    with _begun(dialer, call, options, headers, head.encode(), within(idle)) as connection:
        sent = 0
        for piece in pieces:
            _send(connection, piece, within(idle))
            sent += len(piece)
        if sent != size:
            raise IntegrityError(f"the pieces were {sent} bytes, not {size}", reason="changed")
        _send(connection, tail.encode(), within(idle))
        seconds = within(idle + size / PINNED_PER_SECOND)
        response = _response(connection, seconds)
        with boundary(), allowed(seconds, _ANSWER_BYTES + _BUFFER_BYTES):
            return response.read(_ANSWER_BYTES)


def download(
    dialer: Dialer, call: str, options: Mapping[str, str], *, length: int, idle: float
) -> Generator[bytes, None, None]:
    """The `length` bytes that are answered, 1 MiB at a time and the rest. TierError; `truncated` for fewer bytes."""
    with _begun(dialer, call, options, {}, b"", idle) as connection:
        response = _response(connection, idle)
        for at in range(0, length, CHUNK_BYTES):
            yield _read(response, min(CHUNK_BYTES, length - at), idle)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        # With the usual 8 KiB, every 8 KiB would cost a call into the system.
        self.fp = sock.makefile("rb", _BUFFER_BYTES)


class _OneWay(Connection):
    # To 1.0 the body is answered as it is. To 1.1 Kubo answers in chunks of 4 KiB, and finding their borders costs more
    # than the digest. That a body is whole is known here from its length.
    _http_vsn_str = "HTTP/1.0"
    response_class = _Response


@contextlib.contextmanager
def _begun(
    dialer: Dialer, call: str, options: Mapping[str, str], headers: Mapping[str, str], body: bytes, idle: float
) -> Iterator[Connection]:
    with contextlib.closing(_OneWay(dialer)) as connection:
        with boundary(), allowed(idle, _ANSWER_BYTES):
            connection.begin(call, options, {**headers, "Connection": "close"}, body)
        yield connection


def _send(connection: Connection, data: bytes, idle: float) -> None:
    with boundary():
        try:
            with allowed(idle, 0):
                connection.send(data)
        except ConnectionError:
            # Who refuses an upload answers before its end, and then hears no more of it.
            with contextlib.suppress(OSError, http.client.HTTPException):
                _response(connection, idle)
            raise


def _response(connection: Connection, idle: float) -> http.client.HTTPResponse:
    with boundary(), allowed(idle, _ANSWER_BYTES + _BUFFER_BYTES):
        response = connection.getresponse()
        reject_refusal(response, b"" if response.status == _OK else response.read(_ANSWER_BYTES))
        return response


def _read(response: http.client.HTTPResponse, size: int, idle: float) -> bytes:
    with boundary(), allowed(idle, size + _BUFFER_BYTES):
        piece = response.read(size)
        if len(piece) < size:
            raise IntegrityError(f"the answer ended after {len(piece)} of {size} bytes", reason="truncated")
    return piece
