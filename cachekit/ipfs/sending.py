"""From the outbox to the daemon: payloads, pins, then the segment that names them, and only then off the queue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.artifacts import Holdings
from cachekit.ipfs.content.cids import CHUNK_BYTES, binary_cid, digest_of, file_cid
from cachekit.ipfs.credential import WriterKey
from cachekit.ipfs.index.index import Index
from cachekit.ipfs.index.segments import ENCRYPTED, PINNED, UNIXFS, UNPIN_MARK, Line
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.outbox import Item, Outbox
from cachekit.model import ARTIFACT, Mark


class _Staged(NamedTuple):
    item: Item
    entry: Line
    cid: str
    stored: bytes


@dataclass(frozen=True)
class Sender:
    """Sends batches, one process at a time. `writer` is asked for when there is something to sign.

    `files` sends an artifact's files, until a deadline; whether it could.
    """

    transport: KuboTransport
    index: Index
    table: Table
    outbox: Outbox
    writer: Callable[[], WriterKey]
    report: Callable[[str], None]
    files: Callable[[Item, Deadline], bool]

    def send(self, deadline: Deadline, *, patient: bool = False) -> int:
        """Everything that waits when it is called, until the deadline; how many items that were.

        With `patient` the files of artifacts may take as long as they come to: the deadline is put off meanwhile.

        Raises TierError; items are taken off only when their segment stands in the daemon.
        """
        sent, last = 0, self.outbox.last()
        with self.outbox.exclusive(deadline):
            # What comes meanwhile waits for the next time: else a busy process would send each item by itself.
            while batch := self.outbox.batch(last=last):
                self._send(batch, deadline, patient=patient)
                self.outbox.done([item.id for item in batch])
                sent += len(batch)
        return sent

    def upload(self, data: bytes, deadline: Deadline) -> str:
        """Store bytes as they are; gives the CID, which is the one computed here."""
        cid = file_cid(data)
        if len(data) <= CHUNK_BYTES:
            self.transport.import_blocks([(binary_cid(cid), data)], timeout=deadline.left())
        elif self.transport.add(data, timeout=deadline.left()) != cid:
            raise IntegrityError("the daemon stored other bytes than it was given", reason="wrong_cid")
        return cid

    def _send(self, batch: Sequence[Item], deadline: Deadline, *, patient: bool) -> None:
        lines = dict[str, list[Line]]()
        released = {(item.namespace, item.text) for item in batch if item.kind == "unpin"}
        for one in self._stored(batch, deadline, patient=patient):
            if one.item.pin and (before := self._pin(one, deadline)):
                released.add((one.item.namespace, before))
            lines.setdefault(one.item.namespace, []).append(one.entry)
        for item in batch:
            if item.kind != "entry":
                lines.setdefault(item.namespace, []).append(self._mark(item))
        for namespace, published in lines.items():
            self.index.publish(namespace, published, self.writer(), deadline.left())
        self._release(released, deadline)

    def _stored(self, batch: Sequence[Item], deadline: Deadline, *, patient: bool) -> list[_Staged]:
        """The entries of a batch whose payload and files stand in the daemon."""
        living = [one for item in batch if item.kind == "entry" and (one := self._stage(item))]
        # Only now: the files of an entry that was ended while it waited would be pinned, and nobody would count that.
        began = time.monotonic()
        staged = [one for one in living if self._sends_files(one.item, Deadline(math.inf) if patient else deadline)]
        deadline.at += time.monotonic() - began if patient else 0.0
        blocks = {binary_cid(one.cid): one.stored for one in staged if len(one.stored) <= CHUNK_BYTES}
        if blocks:
            self.transport.import_blocks(list(blocks.items()), timeout=deadline.left())
        return [one for one in staged if len(one.stored) <= CHUNK_BYTES or self._added(one, deadline)]

    def _stage(self, item: Item) -> _Staged | None:
        codec = item.text.encode("ascii")
        plain = b"".join((bytes([len(codec)]), codec, item.payload))
        credential = self.table.credential
        stored = credential.seal(item.namespace, plain) if item.encrypt else plain
        cid = file_cid(stored)
        large = UNIXFS if len(stored) > CHUNK_BYTES else 0
        entry = Line(
            credential.index_key(item.namespace, item.key),
            flags=large | (ENCRYPTED if item.encrypt else 0) | (PINNED if item.pin else 0),
            digest=digest_of(cid),
            size=len(stored),
            created=item.created,
            expires=item.expires,
            grace=item.grace,
            seconds=item.seconds,
            tags=tuple(map(credential.tag_code, dict.fromkeys(item.tag_list))),
        )
        # Invalidated while it waited: nobody could hit it any more.
        return None if self.table.covers(item.namespace, entry) else _Staged(item, entry, cid, stored)

    def _sends_files(self, item: Item, deadline: Deadline) -> bool:
        """Whether what the entry speaks of stands in the daemon; the files of an artifact are sent before its entry."""
        if item.text != ARTIFACT:
            return True
        try:
            sent = self.files(item, deadline)
        except IntegrityError as error:
            self.report(error.reason)
            return False
        if not sent:
            self.report("artifact_gone")
        return sent

    def _added(self, one: _Staged, deadline: Deadline) -> bool:
        try:
            self.upload(one.stored, deadline)
        except IntegrityError as error:
            # It would happen again: kept in the queue it would hold up everything behind it.
            self.report(error.reason)
            return False
        return True

    def _pin(self, one: _Staged, deadline: Deadline) -> str:
        """Pins an entry; gives the CID that its key kept pinned until now, or "" where that is none or the same."""
        # The count first: a pin that nobody counts would never be undone.
        before = self.table.reference(one.item.namespace, one.entry.key, one.cid, one.item.created)
        name = f"cachekit/{self.table.credential.namespace_id(one.item.namespace)}/{one.entry.key.hex()}"
        self.transport.pin(one.cid, name, timeout=deadline.left())
        return "" if before == one.cid else before

    def _mark(self, item: Item) -> Line:
        if item.kind == "unpin":
            return Line(item.key, UNPIN_MARK, created=item.created)
        assert item.kind != "entry"
        return self.table.mark_line(Mark(item.namespace, item.kind, item.text, item.created))

    def _release(self, released: Set[tuple[str, str]], deadline: Deadline) -> None:
        """Unpins what nothing refers to any more, of (namespace, CID of a payload)."""
        gone = {one for one in released if not self.table.references(one[1])}
        files = Holdings(self.transport, self.table).needless(gone, deadline)
        # The files first: without its manifest, whoever comes after a crash would not know them.
        for cid in (*files, *sorted({cid for _, cid in gone})):
            self.transport.unpin(cid, timeout=deadline.left())
