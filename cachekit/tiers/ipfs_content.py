"""What is kept in IPFS by its CID: bytes stored by hand, and the pins of all keys with the count of their references."""

from __future__ import annotations

import time
from typing import Final

from cachekit.cids import binary_cid
from cachekit.credentials import Credential
from cachekit.index import Index, Pin
from cachekit.kubo import Transport
from cachekit.model import Key
from cachekit.outbox import Outbox
from cachekit.tiers.ipfs_files import read_file
from cachekit.tiers.ipfs_guard import Guard
from cachekit.tiers.ipfs_sending import Sender

_BY_HAND: Final = ""
"""The namespace under which `store` counts its pins; no decorated call can have it."""


class Content:
    """Stores, fetches and unpins. Every method may raise TierError."""

    def __init__(
        self,
        transport: Transport,
        index: Index,
        outbox: Outbox,
        credential: Credential,
        guard: Guard,
        sender: Sender,
    ) -> None:
        self._transport = transport
        self._index = index
        self._outbox = outbox
        self._credential = credential
        self._guard = guard
        self._sender = sender

    def unpin(self, what: str | Key) -> int:
        """Take a key's reference off, or all of a CID; how many. Kubo's pin ends at the next flush, with the last."""
        at, taken = time.time_ns(), int(isinstance(what, Key) and self._outbox.drop_pin(what))
        for pin in self._referring(what):
            if self._index.dereference(pin.namespace, pin.key, at):
                self._outbox.add_unpin(pin.namespace, pin.key, pin.cid, at)
                taken += 1
        return taken

    def store(self, data: bytes, *, pin: bool = False, timeout: float) -> str:
        """Publish bytes as they are, unencrypted; gives the CID. Waits for the daemon."""
        end = time.monotonic() + timeout
        cid = self._guard.call(lambda: self._sender.upload(data, end))
        if pin:
            # The count first: a pin that nobody counts would never be undone.
            self._index.reference(_BY_HAND, binary_cid(cid)[4:20], cid, time.time_ns())
            self._guard.call(lambda: self._transport.pin(cid, "cachekit/store", timeout=_left(end)))
        return cid

    def fetch(self, cid: str, *, timeout: float) -> bytes:
        """The verified bytes of a CID. TierError `not_found` where the daemon lacks any part of it."""
        end = time.monotonic() + timeout
        return read_file(
            cid, lambda block: self._guard.call(lambda: self._transport.block_get(block, timeout=_left(end)))
        )

    def _referring(self, what: str | Key) -> list[Pin]:
        if isinstance(what, str):
            return self._index.references(what)
        key = self._credential.index_key(what.namespace, what.digest)
        return [pin for pin in self._index.pins() if (pin.namespace, pin.key) == (what.namespace, key)]


def _left(end: float) -> float:
    # Never 0: some calls would take it for "for ever". What is over fails by itself.
    return max(0.001, end - time.monotonic())
