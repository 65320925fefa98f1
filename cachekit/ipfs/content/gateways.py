"""Blocks from HTTP gateways that nobody trusts: each is asked for one block, and its answer is held against the CID."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Final

from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import digest_of

_BLOCK_BYTES: Final = 2 << 20
"""The largest block that IPFS hands around."""
_PIECE_BYTES: Final = 64 << 10
_SECONDS: Final = 10.0
"""For one block from one gateway, so that a hung one leaves time for the next."""
_ABSENT: Final = (404, 410)


class Gateways:
    """The gateways at `urls`, asked in order. `report` hears `gateway_failed` and `gateway_wrong_bytes`."""

    def __init__(self, urls: Sequence[str], report: Callable[[str], None]) -> None:
        self.urls = list(urls)
        self._report = report

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
        within = Deadline(min(_SECONDS, deadline.left()))
        try:
            with urllib.request.urlopen(request, timeout=within.left()) as answer:  # noqa: S310
                return _read(answer, within)
        except urllib.error.HTTPError as error:
            if error.code not in _ABSENT:
                self._report("gateway_failed")
        except (OSError, http.client.HTTPException, ValueError):
            self._report("gateway_failed")
        return None


def _read(answer: http.client.HTTPResponse, within: Deadline) -> bytes:
    block = bytearray()
    while piece := answer.read1(_PIECE_BYTES):
        block += piece
        if len(block) > _BLOCK_BYTES or not within.rest:
            raise ValueError("more than a block, or slower than a block may be")
    return bytes(block)
