"""Blocks from HTTP gateways that nobody trusts: each is asked for one block, and its answer is held against the CID."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Final

from cachekit.errors import IntegrityError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import digest_of
from cachekit.ipfs.kubo.http import Address, BoundedTLS, Dialer, allowed

_BLOCK_BYTES: Final = 2 << 20
"""The largest block that IPFS hands around."""
_SECONDS: Final = 10.0
"""For one block from one gateway, so that a hung one leaves time for the next."""
_ABSENT: Final = (404, 410)


class Gateways:
    """The gateways at `urls`, asked in order. `report` hears `gateway_failed` and `gateway_wrong_bytes`."""

    def __init__(self, urls: Sequence[str], report: Callable[[str], None]) -> None:
        self.urls = list(urls)
        self._report = report
        self._opener = _opener() if urls else None

    def block(self, cid: str, deadline: Deadline) -> bytes | None:
        """The block, verified, of the first gateway that has it; that one is asked first for the next."""
        for url in list(self.urls):
            block = self._asked(url, cid, deadline)
            if block is not None and hashlib.sha256(block).digest() == digest_of(cid):
                self.urls.remove(url)
                self.urls.insert(0, url)
                return block
            if block is not None:
                self._report("gateway_wrong_bytes")
        return None

    def _asked(self, url: str, cid: str, deadline: Deadline) -> bytes | None:
        request = urllib.request.Request(  # noqa: S310 - http and https only, see the setting
            f"{url}/ipfs/{cid}?format=raw", headers={"Accept": "application/vnd.ipld.raw"}
        )
        assert self._opener is not None
        seconds = min(_SECONDS, deadline.left())
        try:
            with allowed(seconds, _BLOCK_BYTES), self._opener.open(request, timeout=seconds) as answer:
                block = bytes(answer.read())
            if len(block) <= _BLOCK_BYTES:
                return block
            self._report("gateway_failed")
        except urllib.error.HTTPError as error:
            if error.code not in _ABSENT:
                self._report("gateway_failed")
        except (OSError, http.client.HTTPException, ValueError, IntegrityError):
            self._report("gateway_failed")
        return None


# Their sockets have one allowance for the whole of an answer, redirects included: headers may drip in, too.


class _Answer(http.client.HTTPResponse):
    def read(self, amt: int | None = None) -> bytes:
        """As much as a block may have: the room for what is announced would be made before the first byte of it came."""
        most = _BLOCK_BYTES + 1
        return super().read(most if amt is None else min(amt, most))


class _Plain(http.client.HTTPConnection):
    response_class = _Answer

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = lambda address, *_: Dialer(Address("dns", *address), {}).dial()


class _Secure(http.client.HTTPSConnection, _Plain):
    """The same, encrypted."""


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Plain, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        context = ssl.create_default_context()
        context.sslsocket_class = BoundedTLS
        return self.do_open(_Secure, req, context=context)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https through the proxies of the environment; a redirect leads to nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
