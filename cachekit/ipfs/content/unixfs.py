"""UnixFS files as Kubo makes them with CIDv1, raw leaves and 1 MiB chunks: their CIDs, and the way to their leaves.

Constant memory both ways: of a file only the nodes of one path from the root are held.

A file's bytes from its blocks, each verified before anything in it is believed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.content.cids import CHUNK_BYTES, DAG_PB, RAW, Node, binary_cid, cid_from, parent

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


FILE_LINKS: Final = 174
"""Children of one node: Kubo's default, which every Kubo can be made to use. Deeper trees, no newer daemon needed."""

_DEPTH: Final = 16
_LINK: Final = 0x12
_HASH: Final = b"\x0a\x24"
_CID_BYTES: Final = 36


class FileCid:
    """The CID of a file that is fed in pieces of any length. A file of at most 1 MiB is one raw block."""

    def __init__(self, links: int = FILE_LINKS) -> None:
        self._links = links
        self._levels: list[list[Node]] = [[]]
        self._leaf = hashlib.sha256()
        self._filled = 0

    def update(self, data: ReadableBuffer) -> None:
        """The next bytes of the file."""
        view = memoryview(data).cast("B")
        while len(view):
            # A full leaf is closed by the byte after it: a file of exactly 1 MiB has no second, empty one.
            if self._filled == CHUNK_BYTES:
                self._close_leaf()
            part = view[: CHUNK_BYTES - self._filled]
            self._leaf.update(part)
            self._filled += len(part)
            view = view[len(part) :]

    def digest(self) -> str:
        """The CID, as text; to be asked once, after the last piece."""
        self._close_leaf()
        for number, level in enumerate(self._levels):
            if number == len(self._levels) - 1 and len(level) == 1:
                break
            self._append(number + 1, parent(level))
        root = self._levels[-1][0].cid
        return cid_from(root[1], root[4:])

    def _close_leaf(self) -> None:
        cid = binary_cid(cid_from(RAW, self._leaf.digest()))
        self._append(0, Node(cid, self._filled, self._filled))
        self._leaf, self._filled = hashlib.sha256(), 0

    def _append(self, number: int, node: Node) -> None:
        if number == len(self._levels):
            self._levels.append([])
        level = self._levels[number]
        # A full level gets its parent only when more comes: it may turn out to be the last one below the root.
        if len(level) == self._links:
            self._append(number + 1, parent(level))
            level.clear()
        level.append(node)


def leaves(cid: str, block_of: Callable[[str], bytes | None]) -> Iterator[bytes]:
    """The SHA-256 of each leaf of the file `cid`, in order; `block_of` gives the nodes above them, which are verified.

    Raises IntegrityError for a block that does not verify or is no node of such a file, TierError `not_found` for one
    that is not there.
    """
    return _below(binary_cid(cid), block_of, 0)


def _below(cid: bytes, block_of: Callable[[str], bytes | None], depth: int) -> Iterator[bytes]:
    if cid[1] == RAW:
        yield cid[4:]
        return
    if cid[1] != DAG_PB or depth == _DEPTH:
        raise _no_file()
    block = block_of(cid_from(DAG_PB, cid[4:]))
    if block is None:
        raise TierError("the daemon has not all of the file", reason="not_found")
    if hashlib.sha256(block).digest() != cid[4:]:
        raise IntegrityError("the daemon gave other bytes than it was asked for", reason="wrong_bytes")
    for child in _links(block):
        yield from _below(child, block_of, depth + 1)


def _links(block: bytes) -> Iterator[bytes]:
    # Canonical dag-pb only: links first, each its CID first, and no link as long as 128 bytes. Kubo writes no other.
    at = 0
    while at < len(block) and block[at] == _LINK:
        length = block[at + 1] if at + 1 < len(block) else 0
        link = block[at + 2 : at + 2 + length]
        if length > 0x7F or len(link) != length or link[:2] != _HASH or len(link) < 2 + _CID_BYTES:
            raise _no_file()
        yield link[2 : 2 + _CID_BYTES]
        at += 2 + length
    if not at:
        raise _no_file()


_LINK_FIELD: Final = 2
_DATA_FIELD: Final = 1
_HASH_FIELD: Final = 1
_UNIXFS_TYPE: Final = 1
_UNIXFS_DATA: Final = 2
_FILE_TYPES: Final = (0, 2)


def read_file(cid: str, block_of: Callable[[str], bytes | None]) -> bytes:
    """All of a file, through `block_of` (CID → bytes or None).

    Raises IntegrityError for bytes that do not verify or that are no file, TierError `not_found` for a missing part.
    """
    return b"".join(_parts(cid, block_of, 0))


def _parts(cid: str, block_of: Callable[[str], bytes | None], depth: int) -> Iterator[bytes]:
    binary = binary_cid(cid)
    block = block_of(cid)
    if block is None:
        raise TierError(f"the daemon does not have {cid}", reason="not_found")
    if hashlib.sha256(block).digest() != binary[4:]:
        raise IntegrityError("the daemon gave other bytes than it was asked for", reason="wrong_bytes")
    if binary[1] == RAW:
        yield block
        return
    if binary[1] != DAG_PB or depth >= _DEPTH:
        raise _no_file()
    links, data = _node(block)
    if data:
        yield data
    for link in links:
        yield from _parts(link, block_of, depth + 1)


def _node(block: bytes) -> tuple[list[str], bytes]:
    links, unixfs = list[str](), b""
    for number, value in _fields(block):
        if number == _LINK_FIELD and isinstance(value, bytes):
            links += [_text(part) for name, part in _fields(value) if name == _HASH_FIELD and isinstance(part, bytes)]
        elif number == _DATA_FIELD and isinstance(value, bytes):
            unixfs = value
    kind, data = -1, b""
    for number, value in _fields(unixfs):
        if number == _UNIXFS_TYPE and isinstance(value, int):
            kind = value
        elif number == _UNIXFS_DATA and isinstance(value, bytes):
            data = value
    if kind not in _FILE_TYPES:
        raise _no_file()
    return links, data


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2 and at + value <= len(message):
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            raise _no_file()


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _no_file()


def _text(binary: bytes) -> str:
    # `binary_cid` refuses whatever is not one of ours.
    return "b" + base64.b32encode(binary).decode("ascii").lower().rstrip("=")


def _no_file() -> IntegrityError:
    return IntegrityError("what the CID names is not a file", reason="not_a_file")
