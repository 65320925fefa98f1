"""Saying what this machine's writer published: under the topic at once, and by its IPNS name for who is away."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from cachekit.errors import TierError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import binary_cid, raw_cid
from cachekit.ipfs.index.shelves import path_of
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.network import Network
from cachekit.ipfs.swarm.book import Book
from cachekit.ipfs.swarm.heads import Head, sign
from cachekit.ipfs.swarm.messages import Kind
from cachekit.ipfs.trust.credential import WriterKey
from cachekit.model import EVERYWHERE

_CARRIED_BYTES: Final = 128 << 10
"""Of blocks that travel with a head, so that who hears it need not ask for them."""
_LENGTH: Final = struct.Struct(">H")
_LONGEST: Final = 1 << 16


class Voice(Protocol):
    """What speaks to the team. Both may raise TierError."""

    def has_topics(self) -> bool: ...

    def say(self, kind: Kind, says: dict[str, Any], seconds: float, blocks: Mapping[str, bytes]) -> None: ...


class Announcer:
    """Says it by `voice`. `report` hears what could not be said; the next head says it too."""

    def __init__(
        self,
        network: Network,
        table: Table,
        book: Book,
        writer: Callable[[], WriterKey],
        voice: Voice,
        report: Callable[[str], None],
    ) -> None:
        self._network = network
        self._table = table
        self._book = book
        self._writer = writer
        self._voice = voice
        self._report = report
        self._name = ""

    def announce(self, namespace: str, blocks: Mapping[str, bytes], deadline: Deadline) -> None:
        """Say what stands in the daemon for `namespace` by now; `blocks`, by CID, go along as far as they fit."""
        try:
            head = self._head(namespace, deadline)
            if head is not None:
                if self._voice.has_topics():
                    says = {"heads": [head.text.hex()], "new": True}
                    carried = self._carried(head, blocks, deadline)
                    self._voice.say("heads", says, deadline.left(), carried)
                self._point(deadline)
        except TierError as error:
            # Nothing is lost: it stands in the daemon, and every later head says it too.
            self._report(f"unannounced_{error.reason}")

    def announce_all(self, deadline: Deadline) -> None:
        """The same for all namespaces that this machine uses: what was published before there was a team is said too."""
        for namespace in dict.fromkeys((*self._table.namespaces(), EVERYWHERE)):
            self.announce(namespace, {}, deadline)

    def _head(self, namespace: str, deadline: Deadline) -> Head | None:
        """The writer's new head, noted; None where nothing is new."""
        writer, transport = self._writer(), self._network.transport
        path = f"{path_of(self._table, namespace)}/{writer.id}"
        root = transport.stat(path, timeout=deadline.left())
        space = self._table.credential.namespace_id(namespace)
        sequence = self._table.writers(namespace).get(writer.id, (0, ""))[0]
        known = next((head for head in self._book.heads(space) if head.writer == writer.id), None)
        if root is None or (known is not None and (known.root == root or known.sequence >= sequence)):
            return None
        size = sum(size for _, _, size in transport.list(path, timeout=deadline.left()) or ())
        head = sign(self._table.credential, writer, namespace, sequence, root, size, self._called(writer, deadline))
        self._book.add(head)
        for what in ("taken", "kept"):  # it is ours
            self._book.done(head, what)
        return head

    def _carried(self, head: Head, blocks: Mapping[str, bytes], deadline: Deadline) -> dict[str, bytes]:
        root = self._network.transport.block_get(head.root, timeout=deadline.left())
        carried, room = dict[str, bytes](), _CARRIED_BYTES
        for cid, block in ((head.root, root or b""), *blocks.items()):
            if block and len(block) <= room:
                carried[cid] = block
                room -= len(block)
        return carried

    def _called(self, writer: WriterKey, deadline: Deadline) -> str:
        if not self._name:
            try:
                self._name = self._network.name_of(_key(writer), deadline.left())
            except TierError as error:  # a daemon without a keystore of its own: the topic has to do
                self._report(f"no_name_{error.reason}")
        return self._name

    def _point(self, deadline: Deadline) -> None:
        """Have our name name a block with all our heads."""
        writer = self._writer()
        own = [head for head in self._book.heads() if head.writer == writer.id]
        if not self._name or not own:
            return
        block = packed([*(head.text for head in own), self._table.members.roster().text])
        cid = raw_cid(block)
        self._network.transport.import_blocks([(binary_cid(cid), block)], timeout=deadline.left())
        self._network.point(_key(writer), cid, deadline.left())


def packed(texts: list[bytes]) -> bytes:
    """Heads, and the roster, one after the other, as a block that a name names; without what is too long for it."""
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts if 0 < len(text) < _LONGEST)


def unpacked(block: bytes) -> list[bytes]:
    """The texts in such a block; what is cut or absurd ends the list."""
    texts, at = list[bytes](), 0
    while at + _LENGTH.size < len(block):
        length = _LENGTH.unpack_from(block, at)[0]
        at += _LENGTH.size
        if at + length > len(block):
            break
        texts.append(block[at : at + length])
        at += length
    return texts


def _key(writer: WriterKey) -> str:
    return f"cachekit-{writer.id}"
