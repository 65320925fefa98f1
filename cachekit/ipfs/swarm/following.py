"""Taking in what other daemons' writers published: a head is verified, then the segments that it names, then believed."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Mapping
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import binary_cid, digest_of
from cachekit.ipfs.content.unixfs import BlockOf
from cachekit.ipfs.index.index import Index
from cachekit.ipfs.index.reading import payload_of
from cachekit.ipfs.index.segments import Line
from cachekit.ipfs.index.shelves import RootShelf
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.network import Network
from cachekit.ipfs.swarm.announcing import unpacked
from cachekit.ipfs.swarm.book import Book, state_of
from cachekit.ipfs.swarm.heads import Head, read
from cachekit.ipfs.trust.roster import MAGIC as ROSTER
from cachekit.ipfs.trust.roster import Roster
from cachekit.model import EVERYWHERE

KEPT: Final = "/cachekit/v1/kept"
"""In the daemon's MFS: the trees of other daemons' writers, so that a collection leaves them and others find them here."""
MISSING_SECONDS: Final = 60.0
"""How long a payload that nobody had is not looked for again."""
_CALL_SECONDS: Final = 2.0
_MOST_NAMES: Final = 16
_HEADS_BYTES: Final = 1 << 20


class Follower:
    """`report` hears each refusal; who sent it is noted in the book."""

    def __init__(self, network: Network, index: Index, table: Table, book: Book, report: Callable[[str], None]) -> None:
        self._network = network
        self._index = index
        self._table = table
        self._book = book
        self._report = report
        self._taken = 0

    def hear(self, texts: list[bytes], sender: str, *, new: bool) -> list[Head]:
        """The heads among `texts` that are news, verified and noted. Raises TierError where they cannot be noted."""
        known = {(head.space, head.writer): head for head in self._book.heads()}
        fresh = []
        for text in texts:
            try:
                head = read(text, self._table.credential)
                before = known.get((head.space, head.writer))
                if new and before is not None and head.sequence < before.sequence:
                    raise IntegrityError("a head below one that was seen", reason="rollback")
            except IntegrityError as error:
                self.refuse(sender, error.reason)
                continue
            if self._book.add(head):
                fresh.append(head)
        return fresh

    def refuse(self, sender: str, reason: str) -> None:
        """Count what was refused, and who sent it."""
        self._report(reason)
        self._book.blame(sender, reason)

    def take(self, head: Head, blocks: Mapping[str, bytes], deadline: Deadline) -> int:
        """Take in what the head names, if its namespace is one of ours; how many entries. Raises TierError.

        `blocks` came with it; the daemon is given them, and asked, with those that it knows, for all others.
        """
        namespace = self._names().get(head.space)
        if namespace is None:
            return 0
        if blocks:
            pairs = [(binary_cid(cid), block) for cid, block in blocks.items()]
            self._network.transport.import_blocks(pairs, timeout=deadline.left())
        before = self._table.files(namespace, head.writer)
        shelf = RootShelf(head.writer, head.root, self._blocks(blocks, deadline))
        try:
            taken, complete = self._index.take(namespace, shelf, head.writer, deadline)
        except IntegrityError as error:
            self.refuse(head.writer, error.reason)
            self._book.done(head)
            return 0
        for name, (cid, reason) in self._table.files(namespace, head.writer).items():
            if reason and before.get(name) != (cid, reason):
                self._book.blame(head.writer, reason)
        if complete:
            self._book.done(head)
        # Not in one line: what another thread adds during the call would be lost.
        self._taken += taken
        return taken

    def taken(self) -> int:
        """How many entries were taken in since this was last asked, by whatever thread."""
        taken, self._taken = self._taken, 0
        return taken

    def keep(self, head: Head, deadline: Deadline) -> None:
        """Have the daemon keep a tree that was taken in, in place of the writer's earlier one. Raises TierError."""
        transport = self._network.transport
        place = f"{KEPT}/{head.space}/{head.writer}"
        transport.link(head.root, f"{place}/{head.sequence:016d}", timeout=deadline.left())
        for name in transport.names(place, timeout=deadline.left()):
            if name != f"{head.sequence:016d}":
                transport.remove(f"{place}/{name}", timeout=deadline.left())
        self._book.done(head, "kept")

    def look(self, name: str, deadline: Deadline) -> list[Head]:
        """What news an IPNS name names. Raises TierError."""
        cid = self._network.pointed(name, deadline.left())
        if cid is None:
            return []
        block = self._blocks({}, deadline)(cid)
        if block is None or len(block) > _HEADS_BYTES or hashlib.sha256(block).digest() != digest_of(cid):
            return []
        texts = unpacked(block)
        for text in texts:
            if text.startswith(ROSTER):
                self.take_roster(text, name)
        return self.hear([text for text in texts if not text.startswith(ROSTER)], name, new=False)

    def poll(self) -> None:
        """Look up the names of some writers: of whom nobody says anything any more, that is what is left."""
        names = [head.name for head in self._book.heads() if head.name]
        for name in random.sample(names, min(_MOST_NAMES, len(names))):
            with contextlib.suppress(TierError):  # nobody who knows it is connected
                self.look(name, Deadline(_CALL_SECONDS))

    def take_roster(self, text: bytes, sender: str) -> None:
        """Believe a newer roster of the owner, and have the daemon hold it. Raises TierError."""
        try:
            news = self._table.members.take(text)
        except IntegrityError as error:
            self.refuse(sender, error.reason)
            return
        if news:
            self._index.publish_roster(text, _CALL_SECONDS)

    def state(self) -> str:
        """One word for all that is known here."""
        return state_of(self._book.heads(), self.roster().number)

    def roster(self) -> Roster:
        """The newest that is known here."""
        return self._table.members.roster()

    def payload(self, namespace: str, entry: Line, deadline: Deadline) -> bytes | None:
        """What a member's daemon has for an entry, unverified; None where nobody had it, and for a while after that."""
        space = self._table.credential.namespace_id(namespace)
        if self._book.is_missing(space, entry.key):
            return None
        try:
            found = payload_of(self._network.transport, entry, deadline.left(), peers=True)
        except TierUnavailable:  # nobody says "no": they are silent, which says nothing about the daemon
            found = None
        if found is None:
            self._book.missing(space, entry.key, MISSING_SECONDS)
        return found

    def _names(self) -> dict[str, str]:
        credential = self._table.credential
        return {credential.namespace_id(name): name for name in (*self._table.namespaces(), EVERYWHERE)}

    def _blocks(self, blocks: Mapping[str, bytes], deadline: Deadline) -> BlockOf:
        transport = self._network.transport

        def block_of(cid: str) -> bytes | None:
            if cid in blocks:
                return blocks[cid]
            try:
                found = transport.block_get(cid, timeout=deadline.left())
            except TierError:
                found = None
            return found if found is not None else transport.block_get(cid, timeout=deadline.left(), peers=True)

        return block_of
