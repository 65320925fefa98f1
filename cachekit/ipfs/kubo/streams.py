"""What is too large for one answer: files sent to Kubo and read from it piece by piece, in constant memory.

A stream has a connection of its own, and no deadline: only a peer that moves nothing for `idle` seconds ends it.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import CHUNK_BYTES
from cachekit.ipfs.kubo.answers import boundary, from_status, message_of, reject_html
from cachekit.ipfs.kubo.http import Dialer, allowed

_OK: Final = 200
_ANSWER_BYTES: Final = 64 << 10
_BUFFER_BYTES: Final = 256 << 10
_PINNED_PER_SECOND: Final = 20 << 20
"""How slow a disk may be: Kubo reads all of a file once more to pin it, and says nothing meanwhile."""


class Streams:
    """Uploads and downloads at one address. Raises TierError only, but for what the pieces of an upload raise."""

    def __init__(self, dialer: Dialer, headers: Mapping[str, str]) -> None:
        self._dialer = dialer
        self._headers = dict(headers)

    def upload(
        self, call: str, options: Mapping[str, str], pieces: Iterable[bytes], *, size: int, idle: float
    ) -> bytes:
        """POST `pieces`, `size` bytes together, as the one file of a form; what was answered."""
        mark = secrets.token_hex(16)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        tail = f"\r\n--{mark}--\r\n"
        headers = {
            "Content-Type": f"multipart/form-data; boundary={mark}",
            # Not chunked: of a body that breaks off, Kubo then knows that it did.
            "Content-Length": str(len(head) + size + len(tail)),
        }
        with contextlib.closing(_Connection(self._dialer)) as connection:
            self._begin(connection, call, options, headers, head.encode(), idle)
            sent = 0
            for piece in pieces:
                _send(connection, piece, idle)
                sent += len(piece)
            if sent != size:
                raise IntegrityError(f"the pieces were {sent} bytes, not {size}", reason="changed")
            _send(connection, tail.encode(), idle)
            return _answer(connection, idle + size / _PINNED_PER_SECOND)

    def download(
        self, call: str, options: Mapping[str, str], *, length: int, idle: float
    ) -> Generator[bytes, None, None]:
        """The `length` bytes that are answered, 1 MiB at a time and the rest; IntegrityError `truncated` for fewer."""
        with contextlib.closing(_Connection(self._dialer)) as connection:
            self._begin(connection, call, options, {"Content-Length": "0"}, b"", idle)
            response = _response(connection, idle)
            for at in range(0, length, CHUNK_BYTES):
                yield _read(response, min(CHUNK_BYTES, length - at), idle)

    def _begin(
        self,
        connection: http.client.HTTPConnection,
        call: str,
        options: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        idle: float,
    ) -> None:
        with boundary(), allowed(idle, _ANSWER_BYTES):
            connection.putrequest("POST", f"/api/v0/{call}?{urlencode(options)}")
            for name, value in {**self._headers, **headers, "Connection": "close"}.items():
                connection.putheader(name, value)
            connection.endheaders(body)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        # With the usual 8 KiB, every 8 KiB would cost a call into the system.
        self.fp = sock.makefile("rb", _BUFFER_BYTES)


class _Connection(http.client.HTTPConnection):
    # To 1.0 the body is answered as it is. To 1.1 Kubo answers in chunks of 4 KiB, and finding their borders costs more
    # than the digest. That a body is whole is known here from its length.
    _http_vsn_str = "HTTP/1.0"
    response_class = _Response

    def __init__(self, dialer: Dialer) -> None:
        super().__init__(dialer.address.host, dialer.address.port)
        self._dialer = dialer

    def connect(self) -> None:
        self.sock = self._dialer.dial()


def _send(connection: http.client.HTTPConnection, data: bytes, idle: float) -> None:
    with boundary():
        try:
            with allowed(idle, 0):
                connection.send(data)
        except ConnectionError:
            # Who refuses an upload answers before its end, and then hears no more of it.
            with contextlib.suppress(OSError, http.client.HTTPException):
                _response(connection, idle)
            raise


def _response(connection: http.client.HTTPConnection, idle: float) -> http.client.HTTPResponse:
    with boundary(), allowed(idle, _ANSWER_BYTES + _BUFFER_BYTES):
        response = connection.getresponse()
        if response.status != _OK:
            raise from_status(response.status, message_of(response.read(_ANSWER_BYTES)))
        reject_html(response.headers.get("Content-Type", ""))
        return response


def _answer(connection: http.client.HTTPConnection, seconds: float) -> bytes:
    response = _response(connection, seconds)
    with boundary(), allowed(seconds, _ANSWER_BYTES + _BUFFER_BYTES):
        return response.read(_ANSWER_BYTES)


def _read(response: http.client.HTTPResponse, size: int, idle: float) -> bytes:
    with boundary(), allowed(idle, size + _BUFFER_BYTES):
        piece = response.read(size)
        if len(piece) < size:
            raise IntegrityError(f"the answer ended after {len(piece)} of {size} bytes", reason="truncated")
    return piece
