"""From the outbox to the daemon: payloads, pins, then the segment that names them, and only then off the queue.

What is kept in IPFS by its CID: bytes stored by hand, and the pins of all keys with the count of their references.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence, Set
from typing import Final, Literal, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.breaker import Deadline, Guard
from cachekit.ipfs.content.cids import CHUNK_BYTES, binary_cid, digest_of, file_cid
from cachekit.ipfs.content.unixfs import read_file
from cachekit.ipfs.credential import Credential, WriterKey
from cachekit.ipfs.index.index import Index, Pin, tag_of
from cachekit.ipfs.index.pins import Holdings
from cachekit.ipfs.index.segments import ENCRYPTED, PINNED, UNIXFS, UNPIN_MARK, Line
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.outbox import Item, Outbox
from cachekit.model import ARTIFACT, Key, Mark


class _Staged(NamedTuple):
    item: Item
    entry: Line
    cid: str
    stored: bytes


class Sender:
    """Sends batches, one process at a time. `writer` is asked for when there is something to sign."""

    def __init__(
        self,
        transport: KuboTransport,
        index: Index,
        outbox: Outbox,
        credential: Credential,
        writer: Callable[[], WriterKey],
        report: Callable[[str], None],
        files: Callable[[Item, Deadline], bool],
    ) -> None:
        self._transport = transport
        self._index = index
        self._outbox = outbox
        self._credential = credential
        self._writer = writer
        self._report = report
        self._files = files
        self._holdings = Holdings(transport, index, credential)

    def send(self, deadline: Deadline, *, patient: bool = False) -> int:
        """Everything that waits when it is called, until the deadline; how many items that were.

        With `patient` the files of artifacts may take as long as they come to: the deadline is put off meanwhile.

        Raises TierError; items are taken off only when their segment stands in the daemon.
        """
        sent, last = 0, self._outbox.last()
        with self._outbox.exclusive(deadline):
            # What comes meanwhile waits for the next time: else a busy process would send each item by itself.
            while batch := self._outbox.batch(last=last):
                self._send(batch, deadline, patient=patient)
                self._outbox.done([item.id for item in batch])
                sent += len(batch)
        return sent

    def upload(self, data: bytes, deadline: Deadline) -> str:
        """Store bytes as they are; gives the CID, which is the one computed here."""
        cid = file_cid(data)
        if len(data) <= CHUNK_BYTES:
            self._transport.import_blocks([(binary_cid(cid), data)], timeout=deadline.left())
        elif self._transport.add(data, timeout=deadline.left()) != cid:
            raise IntegrityError("the daemon stored other bytes than it was given", reason="wrong_cid")
        return cid

    def _send(self, batch: Sequence[Item], deadline: Deadline, *, patient: bool) -> None:
        living = [made for item in batch if item.kind == "entry" and (made := self._stage(item))]
        # Only now: the files of an entry that was ended while it waited would be pinned, and nobody would count that.
        began = time.monotonic()
        staged = [one for one in living if self._sends_files(one.item, Deadline(math.inf) if patient else deadline)]
        deadline.at += time.monotonic() - began if patient else 0.0
        blocks = {binary_cid(one.cid): one.stored for one in staged if len(one.stored) <= CHUNK_BYTES}
        if blocks:
            self._transport.import_blocks(list(blocks.items()), timeout=deadline.left())
        stored = [one for one in staged if len(one.stored) <= CHUNK_BYTES or self._added(one, deadline)]
        released = {(item.namespace, item.text) for item in batch if item.kind == "unpin"}
        for one in stored:
            if one.item.pin and (before := self._pin(one, deadline)):
                released.add((one.item.namespace, before))
        entries = dict[str, list[Line]]()
        for one in stored:
            entries.setdefault(one.item.namespace, []).append(one.entry)
        for item in batch:
            if item.kind != "entry":
                entries.setdefault(item.namespace, []).append(self._mark(item))
        for namespace, lines in entries.items():
            self._index.publish(self._transport, namespace, lines, self._writer(), deadline.left())
        self._release(released, deadline)

    def _sends_files(self, item: Item, deadline: Deadline) -> bool:
        """Whether what the entry speaks of stands in the daemon; the files of an artifact are sent before its entry."""
        if item.text != ARTIFACT:
            return True
        try:
            sent = self._files(item, deadline)
        except IntegrityError as error:
            self._report(error.reason)
            return False
        if not sent:
            self._report("artifact_gone")
        return sent

    def _stage(self, item: Item) -> _Staged | None:
        codec = item.text.encode("ascii")
        plain = b"".join((bytes([len(codec)]), codec, item.payload))
        stored = self._credential.seal(item.namespace, plain) if item.encrypt else plain
        cid = file_cid(stored)
        large = UNIXFS if len(stored) > CHUNK_BYTES else 0
        flags = large | (ENCRYPTED if item.encrypt else 0) | (PINNED if item.pin else 0)
        tags = tuple(tag_of(self._credential, tag) for tag in dict.fromkeys(item.tag_list))
        entry = Line(
            self._credential.index_key(item.namespace, item.key),
            flags=flags,
            digest=digest_of(cid),
            size=len(stored),
            created=item.created,
            expires=item.expires,
            grace=item.grace,
            seconds=item.seconds,
            tags=tags,
        )
        # Invalidated while it waited: nobody could hit it any more.
        return None if self._index.covers(item.namespace, entry) else _Staged(item, entry, cid, stored)

    def _added(self, one: _Staged, deadline: Deadline) -> bool:
        try:
            self.upload(one.stored, deadline)
        except IntegrityError as error:
            # It would happen again: kept in the queue it would hold up everything behind it.
            self._report(error.reason)
            return False
        return True

    def _pin(self, one: _Staged, deadline: Deadline) -> str:
        """Pins an entry; gives the CID that its key kept pinned until now, or "" where that is none or the same."""
        # The count first: a pin that nobody counts would never be undone.
        before = self._index.reference(one.item.namespace, one.entry.key, one.cid, one.item.created)
        name = f"cachekit/{self._credential.namespace_id(one.item.namespace)}/{one.entry.key.hex()}"
        self._transport.pin(one.cid, name, timeout=deadline.left())
        return "" if before == one.cid else before

    def _release(self, released: Set[tuple[str, str]], deadline: Deadline) -> None:
        """Unpins what nothing refers to any more, of (namespace, CID of a payload)."""
        gone = {one for one in released if not self._index.references(one[1])}
        # The files first: without its manifest, whoever comes after a crash would not know them.
        for cid in (*self._holdings.needless(gone, deadline), *sorted({cid for _, cid in gone})):
            self._transport.unpin(cid, timeout=deadline.left())

    def _mark(self, item: Item) -> Line:
        if item.kind == "unpin":
            return Line(item.key, UNPIN_MARK, created=item.created)
        kind: Literal["namespace", "tag", "key"] = (
            "tag" if item.kind == "tag" else "key" if item.kind == "key" else "namespace"
        )
        return self._index.mark_entry(Mark(item.namespace, kind, item.text, item.created))


_BY_HAND: Final = ""
"""The namespace under which `store` counts its pins; no decorated call can have it."""


class Content:
    """Stores, fetches and unpins. Every method may raise TierError."""

    def __init__(
        self,
        transport: KuboTransport,
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
        deadline = Deadline(timeout)
        cid = self._guard.call(lambda: self._sender.upload(data, deadline))
        if pin:
            # The count first: a pin that nobody counts would never be undone.
            self._index.reference(_BY_HAND, binary_cid(cid)[4:20], cid, time.time_ns())
            self._guard.call(lambda: self._transport.pin(cid, "cachekit/store", timeout=deadline.left()))
        return cid

    def fetch(self, cid: str, *, timeout: float) -> bytes:
        """The verified bytes of a CID. TierError `not_found` where the daemon lacks any part of it."""
        deadline = Deadline(timeout)
        return read_file(
            cid, lambda block: self._guard.call(lambda: self._transport.block_get(block, timeout=deadline.left()))
        )

    def _referring(self, what: str | Key) -> list[Pin]:
        if isinstance(what, str):
            return self._index.references(what)
        key = self._credential.index_key(what.namespace, what.digest)
        return [pin for pin in self._index.pins() if (pin.namespace, pin.key) == (what.namespace, key)]
