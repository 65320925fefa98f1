"""The same directory behind any static web server: whoever can GET its files can read, and nobody writes."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPResponse
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from cachekit.errors import IntegrityError, TierUnavailable
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.directory.layout import BLOCKS, MARK_BYTES, STORE, Where, marked
from cachekit.ipfs.directory.stored import Stored, read_only
from cachekit.ipfs.kubo.answers import boundary
from cachekit.ipfs.kubo.client import authorization
from cachekit.ipfs.kubo.http import Address, Connection, Dialer, KeptConnection, within

_OK: Final = 200
_ABSENT: Final = (404, 410)
_REFUSED: Final = (401, 403)
_BUSY: Final = 429
_SERVER_ERROR: Final = 500


class _Getting(Connection):
    def begin(self, call: str, options: Mapping[str, str], headers: Mapping[str, str], body: bytes = b"") -> None:
        del body
        self.request("GET", call, headers={**self._dialer.headers, **options, **headers})


class Web(Stored):
    """The directory at `api`, an `http:` or `https:` URL. One connection per thread and process; no proxy, no redirect.

    As `content.engine.Engine` says, whose calls that store raise TierError `read_only`. `auth` is as for Kubo's RPC.
    """

    kind = "web directory"
    writable = False

    def __init__(self, api: str, *, auth: str | None = None) -> None:
        self.api = api
        place = urlsplit(api)
        secure = place.scheme == "https"
        address = Address("dns", place.hostname or "", place.port or (443 if secure else 80), secure=secure)
        self._dialer = Dialer(address, authorization(auth))
        self._prefix = quote(unquote(place.path).rstrip("/"))
        self._local = threading.local()
        self._found = False

    def _get(self, where: Where, limit: int, timeout: float) -> bytes | None:
        # Listings change: nobody between us and the server may answer with an old one.
        deadline = Deadline(timeout)
        headers = {} if where[0] == BLOCKS else {"Cache-Control": "no-cache"}
        url = "/".join((self._prefix, *(quote(name, safe="") for name in where)))
        try:
            with boundary():
                response, body = self._mine().exchange(url, headers, timeout=timeout, limit=limit)
        except IntegrityError as error:
            if error.reason != "not_kubo":
                raise
            raise self._no_store(f"{error.__cause__}") from error
        data = self._judged(response, body, limit)
        if data is None and where != STORE and not self._found:
            # Behind a wrong address everything would be a miss, and nobody told.
            marked(self._get(STORE, MARK_BYTES, deadline.rest), self.api)
        self._found = self._found or data is not None
        return data

    def _judged(self, response: HTTPResponse, body: bytes, limit: int) -> bytes | None:
        status = response.status
        if status in _ABSENT:
            return None
        if status in _REFUSED:
            raise TierUnavailable(f"{self.api} refuses us ({status}); set CACHEKIT_IPFS_AUTH", reason="forbidden")
        if status == _BUSY or status >= _SERVER_ERROR:
            raise TierUnavailable(f"{self.api} answered {status}", reason=f"http_{status}")
        if status != _OK:
            raise self._no_store(f"it answered {status}")
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise self._no_store("it answered with a web page")
        return within(body, limit)

    def _no_store(self, why: str) -> TierUnavailable:
        return TierUnavailable(f"{self.api} is no store of cachekit's: {why}", reason="no_store")

    def _mine(self) -> KeptConnection:
        mine: tuple[int, KeptConnection] | None = getattr(self._local, "mine", None)
        # After a fork both processes would read each other's answers from one connection.
        if mine is None or mine[0] != os.getpid():
            mine = self._local.mine = (os.getpid(), KeptConnection(self._dialer, _Getting))
        return mine[1]

    def close(self) -> None:
        """Drop the connections, those of other threads once their call is over."""
        self._local = threading.local()

    def collect(self, *, timeout: float) -> int:
        """0: only who writes collects."""
        del timeout
        return 0

    # -- what nobody can do here ------------------------------------------------------------------------

    def import_blocks(self, blocks: Sequence[tuple[bytes, bytes]], *, timeout: float) -> None:
        raise read_only(self.api)

    def add(self, data: bytes, *, timeout: float) -> str:
        raise read_only(self.api)

    def add_stream(
        self, pieces: Iterable[bytes], *, size: int, pin_name: str | None, idle: float, until: float = math.inf
    ) -> str:
        raise read_only(self.api)

    def write(self, path: str, data: bytes, *, timeout: float) -> None:
        raise read_only(self.api)

    def remove(self, path: str, *, timeout: float) -> None:
        raise read_only(self.api)

    def pin(self, cid: str, name: str, *, timeout: float) -> None:
        raise read_only(self.api)

    def unpin(self, cid: str, *, timeout: float) -> None:
        raise read_only(self.api)

    def link(self, cid: str, path: str, *, timeout: float) -> None:
        raise read_only(self.api)
