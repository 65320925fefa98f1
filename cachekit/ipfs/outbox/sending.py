"""From the outbox to the daemon: payloads, pins, then the segment that names them, and only then off the queue."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cachekit.artifacts.manifest import Manifest
from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.artifacts import Holdings
from cachekit.ipfs.content.cids import CHUNK_BYTES, binary_cid, file_cid, raw_cid
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.pins import Pins
from cachekit.ipfs.content.sealed import packed
from cachekit.ipfs.index.index import Index
from cachekit.ipfs.index.rows import cid_of, line_of, pin_end
from cachekit.ipfs.index.segments import PINNED, UNPIN_MARK, Line
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.outbox.queue import Item, Outbox
from cachekit.ipfs.trust.credential import WriterKey
from cachekit.model import ARTIFACT, Key, Mark

_COLLECTED: Final = ("not_found", "collecting")
_BAD_ANSWERS: Final = ("truncated", "not_kubo", "oversized")
"""Of the daemon, or of who stands before it: the next one may be good, and what was to be sent still is."""
_AGAIN_SECONDS: Final = 0.01
_SMALL_BYTES: Final = 16 << 10
"""A payload up to this goes along with the word that it exists."""


class _Staged(NamedTuple):
    item: Item
    entry: Line
    cid: str
    stored: bytes

    @property
    def goes_along(self) -> bool:
        """Whether its block is sent with others; what is to be pinned might be collected before it is."""
        return not self.item.pin and len(self.stored) <= CHUNK_BYTES


class Adopted(NamedTuple):
    """An entry, with the other lines that belong to it behind it; `files` are the CIDs of its artifact's."""

    lines: tuple[Line, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Sender:
    """Sends batches, one process at a time. `writer` is asked for when there is something to sign.

    `files` sends an artifact's files, until a deadline; whether it could. `announce` tells other daemons what a namespace
    has by now, with the blocks that may go along.
    """

    transport: Engine
    index: Index
    table: Table
    outbox: Outbox
    writer: Callable[[], WriterKey]
    report: Callable[[str], None]
    files: Callable[[Item, Deadline], bool]
    announce: Callable[[str, Mapping[str, bytes], Deadline], None] = lambda _namespace, _blocks, _deadline: None

    @property
    def pins(self) -> Pins:
        """The daemon's, of all its users."""
        return Pins(self.transport)

    def send(self, deadline: Deadline, *, patient: bool = False) -> int:
        """Everything that waits when it is called, until the deadline; how many items that were.

        With `patient` the files of artifacts may take as long as they come to: the deadline is put off meanwhile.

        Raises TierError; items are taken off only when their segment stands in the daemon.
        """
        sent, last = 0, self.outbox.last()
        with self.outbox.exclusive(deadline):
            # What comes meanwhile waits for the next time: else a busy process would send each item by itself.
            while batch := self.outbox.batch(last=last):
                again(lambda batch=batch: self._send(batch, deadline, patient=patient), deadline)  # type: ignore[misc]
                self.outbox.done([item.id for item in batch])
                sent += len(batch)
            self._release(deadline)
        return sent

    def release(self, deadline: Deadline) -> int:
        """Let go of what this machine holds and nothing refers to any more; how many CIDs."""
        with self.outbox.exclusive(deadline):
            return self._release(deadline)

    def collect(self, deadline: Deadline, *, writes: bool) -> dict[str, int]:
        """Let go of what nothing refers to, and, who `writes`, take what is dead out of its segments; how many of each."""
        pins, lines, segments = self.release(deadline), 0, 0
        for namespace in self.table.namespaces() if writes else ():
            fewer = self.index.tidy(namespace, self.writer(), deadline.left())
            lines, segments = lines + fewer[0], segments + fewer[1]
        return {"ipfs_pins": pins, "ipfs_lines": lines, "ipfs_segments": segments}

    def store(self, data: bytes, namespace: str, key: bytes, name: str, deadline: Deadline) -> None:
        """`upload`, and have the daemon keep it, pinned under `name`, while (namespace, key) refers to it."""
        hold = functools.partial(self.hold, namespace, key, file_cid(data), len(data), name, deadline, stored=data)
        again(hold, deadline)

    def upload(self, data: bytes, deadline: Deadline) -> str:
        """Store bytes as they are; gives the CID, which is the one computed here."""
        cid = file_cid(data)
        if len(data) <= CHUNK_BYTES:
            self.transport.import_blocks([(binary_cid(cid), data)], timeout=deadline.left())
        elif self.transport.add(data, timeout=deadline.left()) != cid:
            raise IntegrityError("the daemon stored other bytes than it was given", reason="wrong_cid")
        return cid

    def _send(self, batch: Sequence[Item], deadline: Deadline, *, patient: bool) -> None:
        lines, small = dict[str, list[Line]](), dict[str, bytes]()
        for one in self._stored(batch, deadline, patient=patient):
            if len(one.stored) <= _SMALL_BYTES:
                small[one.cid] = one.stored
            lines.setdefault(one.item.namespace, []).extend((one.entry, *pin_end(one.entry, one.item.pin)))
        for item in batch:
            if item.kind != "entry":
                lines.setdefault(item.namespace, []).append(self._mark(item))
        for namespace, published in lines.items():
            written = self.index.publish(namespace, published, self.writer(), deadline.left())
            self.announce(namespace, {**dict(raw_blocks(written)), **small}, deadline)
        for item in batch:
            if item.kind == "unpin":
                self._take_over(item.namespace, item.key, item.text, deadline)
                # It was: unless who took it off died at that.
                self.table.dereference(item.namespace, item.key, item.created)

    def _stored(self, batch: Sequence[Item], deadline: Deadline, *, patient: bool) -> list[_Staged]:
        """The entries of a batch whose payload and files stand in the daemon."""
        living = [one for item in batch if item.kind == "entry" and (one := self._stage(item))]
        # Only now: the files of an entry that was ended while it waited would be pinned, and nobody would count that.
        began = time.monotonic()
        staged = [one for one in living if self._sends_files(one, Deadline(math.inf) if patient else deadline)]
        deadline.at += time.monotonic() - began if patient else 0.0
        blocks = {binary_cid(one.cid): one.stored for one in staged if one.goes_along}
        if blocks:
            self.transport.import_blocks(list(blocks.items()), timeout=deadline.left())
        return [one for one in staged if one.goes_along or self._added(one, deadline)]

    def _stage(self, item: Item) -> _Staged | None:
        if not item.record.kept(time.time_ns()):  # its time ended while it waited
            item = item._replace(pin=0)
        self.table.members.roster()  # with the later generations of the secret
        credential, key, record = self.table.credential, Key(item.namespace, item.key), item.record
        stored = packed(credential, key.namespace, record.codec, record.payload, encrypt=bool(item.encrypt))
        cid = file_cid(stored)
        entry = line_of(credential, key, record, cid, len(stored), encrypt=bool(item.encrypt))
        # Invalidated while it waited: nobody could hit it any more.
        return None if self.table.covers(item.namespace, entry) else _Staged(item, entry, cid, stored)

    def _sends_files(self, one: _Staged, deadline: Deadline) -> bool:
        """Whether what the entry speaks of stands in the daemon; the files of an artifact are sent before its entry."""
        item = one.item
        if item.text != ARTIFACT:
            return True
        try:
            if item.pin:
                self.table.hold(item.namespace, one.entry.key, one.cid, _files(item))
            sent = self.files(item, deadline)
        except IntegrityError as error:
            if error.reason in _BAD_ANSWERS:
                raise
            self.report(error.reason)
            return False
        if not sent:
            self.report("artifact_gone")
        return sent

    def _added(self, one: _Staged, deadline: Deadline) -> bool:
        try:
            if one.item.pin:
                self._pin(one.item.namespace, one.entry, deadline, _files(one.item), one.stored)
            else:
                self.upload(one.stored, deadline)
        except IntegrityError as error:
            if error.reason != "wrong_cid":
                raise
            # It would happen again: kept in the queue it would hold up everything behind it.
            self.report(error.reason)
            return False
        return True

    def adopt(
        self, namespace: str, adopted: Sequence[Adopted], restore: Callable[[Line], None], deadline: Deadline
    ) -> None:
        """Publish entries whose blocks were just put into the daemon, pinned where they say so.

        `restore` puts the blocks of one there again. Raises TierError; nothing is published then.
        """
        with self.outbox.exclusive(deadline):
            for (entry, *_), files in adopted:
                if entry.flags & PINNED:
                    pin = functools.partial(self._pin, namespace, entry, deadline, files)
                    again(pin, deadline, functools.partial(restore, entry))
            lines = [line for one in adopted for line in one.lines]
            self.index.publish(namespace, lines, self.writer(), deadline.left())

    def _pin(
        self, namespace: str, entry: Line, deadline: Deadline, files: Sequence[str], stored: bytes | None = None
    ) -> None:
        cid, before = cid_of(entry), self.table.referred(namespace, entry.key)
        if before not in ("", cid):
            self._take_over(namespace, entry.key, before, deadline)
        self.table.reference(namespace, entry.key, cid, entry.created)
        name = f"{self.table.credential.namespace_id(namespace)}/{entry.key.hex()}"
        self.hold(namespace, entry.key, cid, entry.size, name, deadline, files, stored)

    def hold(
        self,
        namespace: str,
        key: bytes,
        cid: str,
        size: int,
        name: str,
        deadline: Deadline,
        files: Sequence[str] = (),
        stored: bytes | None = None,
    ) -> None:
        """Have the daemon keep `cid` and `files`, pinned under `name`, while (namespace, key) refers to it.

        `stored` is what `cid` names, where the daemon does not have it yet.
        """
        # Noted first: what nobody knows of would never be undone.
        noted = self.table.hold(namespace, key, cid, dict.fromkeys((*files, cid)))
        if stored is not None:
            self.pins.store(stored, cid, name, deadline)
        for held in noted:
            self.pins.link(held, deadline)
        if stored is None:
            self.pins.pin(cid, size, name, deadline)

    def _mark(self, item: Item) -> Line:
        if item.kind == "unpin":
            return Line(item.key, UNPIN_MARK, created=item.created)
        assert item.kind != "entry"
        return self.table.mark_line(Mark(item.namespace, item.kind, item.text, item.created))

    def _release(self, deadline: Deadline) -> int:
        for pin, created in self.table.overdue():
            # Whoever comes first, whichever machine pinned it: all know when it ends.
            self._take_over(pin.namespace, pin.key, pin.cid, deadline)
            self.table.dereference(pin.namespace, pin.key, created)
        needless = self.table.needless()
        for held in needless:
            self.pins.let_go(held, deadline)
            self.table.let_go(held)
        return len(needless)

    def _take_over(self, namespace: str, key: bytes, root: str, deadline: Deadline) -> None:
        """Hold what another machine may hold for a reference that ends here, so that it is let go of."""
        if root and not self.table.holds(namespace, key, root):
            manifest = Holdings(self.transport, self.table).manifest(namespace, root, deadline)
            files = [file.cid for file in manifest.files if file.cid] if manifest is not None else []
            self.table.hold(namespace, key, root, [*files, root])


def raw_blocks(written: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Those of the segments that are one block, which their bytes are."""
    return ((cid, data) for cid, data in written if raw_cid(data) == cid)


def again(work: Callable[[], None], deadline: Deadline, restore: Callable[[], object] = lambda: None) -> None:
    """Do `work`, as often as a collection takes away what it stored before it is pinned; raises TierError.

    `restore` stores once more what it takes for granted.
    """
    while True:
        try:
            return work()
        except TierError as error:
            if error.reason not in _COLLECTED or deadline.rest <= _AGAIN_SECONDS:
                raise
            time.sleep(_AGAIN_SECONDS)
            restore()


def _files(item: Item) -> list[str]:
    manifest = Manifest.decode(item.payload) if item.text == ARTIFACT else None
    return [file.cid for file in manifest.files if file.cid] if manifest is not None else []
