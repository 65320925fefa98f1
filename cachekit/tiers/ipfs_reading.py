"""From a key to its record: what the index says, what the daemon gives, and nothing that does not verify."""

from __future__ import annotations

import time

from cachekit.cids import file_cid, raw_cid
from cachekit.credentials import Credential
from cachekit.errors import IntegrityError
from cachekit.index import Index, alive, cid_of
from cachekit.kubo import Transport
from cachekit.model import Key, Record
from cachekit.segments import ENCRYPTED, PINNED, UNIXFS, Entry
from cachekit.tiers.ledger import veiled


class Reader:
    """Reads entries and payloads. Every method may raise TierError."""

    def __init__(self, transport: Transport, index: Index, credential: Credential) -> None:
        self._transport = transport
        self._index = index
        self._credential = credential

    def living(self, key: Key) -> Entry | None:
        """What the local index has for a key, unless it is expired or ended."""
        entry = self._index.find(key.namespace, key.digest)
        if entry is None or not alive(entry, time.time_ns()) or self._index.covers(key.namespace, entry):
            return None
        return entry

    def stored(self, entry: Entry, timeout: float) -> bytes | None:
        """The payload as the daemon has it, unverified; None where it was collected."""
        cid = cid_of(entry)
        if entry.flags & UNIXFS:
            return self._transport.cat(cid, size=entry.size, timeout=timeout)
        return self._transport.block_get(cid, timeout=timeout)

    def record(self, namespace: str, entry: Entry, stored: bytes) -> Record:
        """The record that `entry` promises; IntegrityError where the bytes are others, or no record."""
        found = file_cid(stored) if entry.flags & UNIXFS else raw_cid(stored)
        if found != cid_of(entry):
            raise IntegrityError("the daemon gave other bytes than the index names", reason="wrong_bytes")
        plain = self._credential.unseal(namespace, stored) if entry.flags & ENCRYPTED else stored
        if not plain or len(plain) <= plain[0]:
            raise IntegrityError("a payload without its codec", reason="malformed")
        try:
            codec = plain[1 : 1 + plain[0]].decode("ascii")
        except UnicodeDecodeError as error:
            raise IntegrityError("a payload without its codec", reason="malformed") from error
        return Record(
            codec,
            plain[1 + plain[0] :],
            entry.created,
            entry.expires,
            entry.grace,
            entry.seconds,
            tags=tuple(map(veiled, entry.tags)),
            # A reference may have been taken off since.
            pin=bool(entry.flags & PINNED) and self._is_referred(namespace, entry),
        )

    def _is_referred(self, namespace: str, entry: Entry) -> bool:
        return any((pin.namespace, pin.key) == (namespace, entry.key) for pin in self._index.references(cid_of(entry)))
