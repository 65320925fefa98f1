"""Content identifiers computed here, so that nobody's word has to be taken for them.

A CID is text, base32 CIDv1 over SHA-256; a *binary* CID is the 36 bytes behind it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from cachekit.errors import IntegrityError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

RAW: Final = 0x55
DAG_PB: Final = 0x70
CHUNK_BYTES: Final = 1 << 20
LINKS: Final = 174
"""Children of one node of a file: Kubo's default, which every Kubo can be made to use."""

_SHA2_256: Final = b"\x12\x20"
_DIGEST_BYTES: Final = 32
_UNIXFS_FILE: Final = 2
_UNIXFS_DIRECTORY: Final = 1
_LATELY: Final = 1024
"""CIDs of which both forms are remembered: base32 takes longer than all else that is done with a small block."""


def raw_cid(data: bytes) -> str:
    """The CID of `data` as one raw block."""
    return cid_from(RAW, hashlib.sha256(data).digest())


def file_cid(data: bytes) -> str:
    """The CID of `data` as a file: the raw CID up to 1 MiB."""
    cid = FileCid()
    cid.update(data)
    return cid.digest()


def cid_from(codec: int, digest: bytes) -> str:
    """The CID of a block by its `codec` (`RAW`, `DAG_PB`) and its 32-byte SHA-256."""
    return text_of(_binary(codec, digest))


def digest_of(cid: str) -> bytes:
    """The 32-byte SHA-256 in `cid`; raises IntegrityError as `binary_cid` does."""
    return binary_cid(cid)[-_DIGEST_BYTES:]


@functools.lru_cache(maxsize=_LATELY)
def binary_cid(cid: str) -> bytes:
    """The 36 bytes behind `cid`; IntegrityError unless it is a base32 CIDv1 with SHA-256 and a one-byte codec."""
    try:
        binary = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))
    except (binascii.Error, ValueError) as error:
        raise _unusable(cid) from error
    # Written back and compared: base32 has several spellings for one value, a CID must have one.
    if binary[:1] != b"\x01" or binary[2:4] != _SHA2_256 or len(binary) != _DIGEST_BYTES + 4 or text_of(binary) != cid:
        raise _unusable(cid)
    return binary


@functools.lru_cache(maxsize=_LATELY)
def text_of(binary: bytes) -> str:
    """The base32 text of a binary CID, of whatever kind; `binary_cid` refuses what is not one of ours."""
    return "b" + base64.b32encode(binary).decode("ascii").lower().rstrip("=")


def encode_car(blocks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A CARv1 of (binary CID, block) pairs, the first of them its root. ValueError where there is none."""
    if not blocks:
        raise ValueError("a CAR holds at least one block")
    parts = [car_header(blocks[0][0])]
    for cid, block in blocks:
        parts += (car_section(cid, block), block)
    return b"".join(parts)


def car_header(root: bytes) -> bytes:
    """What a CARv1 begins with; `root` is a binary CID."""
    # DAG-CBOR of {"roots": [root], "version": 1}; tag 42 marks a CID, 0x58 a byte string with a one-byte length.
    header = b"\xa2\x65roots\x81\xd8\x2a\x58" + bytes([len(root) + 1]) + b"\x00" + root + b"\x67version\x01"
    return _varint(len(header)) + header


def car_section(cid: bytes, block: bytes) -> bytes:
    """What stands before a block in a CAR; `cid` is binary."""
    return _varint(len(cid) + len(block)) + cid


class _Node(NamedTuple):
    """A block of a file's DAG, leaf or not; `cid` is binary."""

    cid: bytes
    stored: int
    """Bytes of the block and of everything below it."""
    content: int
    """Bytes of the file that it stands for."""


def directory_block(entries: Iterable[tuple[str, str, int]]) -> tuple[str, bytes, int]:
    """CID, block and bytes below of a directory with (name, CID, bytes below) entries, as Kubo writes it."""
    # Sorted by the bytes of the name: dag-pb knows one order.
    ordered = sorted((name.encode(), _Node(binary_cid(cid), stored, 0)) for name, cid, stored in entries)
    block = b"".join(_link(child, name) for name, child in ordered) + _bytes(1, _number(1, _UNIXFS_DIRECTORY))
    stored = len(block) + sum(child.stored for _, child in ordered)
    return cid_from(DAG_PB, hashlib.sha256(block).digest()), block, stored


class FileCid:
    """The CID of a file that is fed in pieces of any length, as Kubo makes it with CIDv1, raw leaves and 1 MiB chunks.

    A file of at most 1 MiB is one raw block. Constant memory: only the nodes of one path from the root are held.
    `keep` is given the binary CID and the block of each node above the leaves.
    """

    def __init__(self, keep: Callable[[bytes, bytes], object] = lambda _cid, _block: None) -> None:
        self._keep = keep
        self._levels: list[list[_Node]] = [[]]
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
        return text_of(self._root().cid)

    def measured(self) -> tuple[str, int]:
        """The CID, and the bytes of all blocks; to be asked once, instead of `digest`."""
        root = self._root()
        return text_of(root.cid), root.stored

    def _root(self) -> _Node:
        self._close_leaf()
        for number, level in enumerate(self._levels):
            if number == len(self._levels) - 1 and len(level) == 1:
                break
            self._append(number + 1, self._parent(level))
        return self._levels[-1][0]

    def _close_leaf(self) -> None:
        self._append(0, _Node(_binary(RAW, self._leaf.digest()), self._filled, self._filled))
        self._leaf, self._filled = hashlib.sha256(), 0

    def _append(self, number: int, node: _Node) -> None:
        if number == len(self._levels):
            self._levels.append([])
        level = self._levels[number]
        # A full level gets its parent only when more comes: it may turn out to be the last one below the root.
        if len(level) == LINKS:
            self._append(number + 1, self._parent(level))
            level.clear()
        level.append(node)

    def _parent(self, children: Sequence[_Node]) -> _Node:
        node, block = _parent(children)
        self._keep(node.cid, block)
        return node


def _parent(children: Sequence[_Node]) -> tuple[_Node, bytes]:
    """The block that has `children`, in their order, as Kubo writes it."""
    links = b"".join(_link(child) for child in children)
    content = sum(child.content for child in children)
    sizes = b"".join(_number(4, child.content) for child in children)
    unixfs = _number(1, _UNIXFS_FILE) + _number(3, content) + sizes
    # Links precede the data: canonical dag-pb, although field 2 then comes before field 1.
    block = links + _bytes(1, unixfs)
    stored = len(block) + sum(child.stored for child in children)
    return _Node(_binary(DAG_PB, hashlib.sha256(block).digest()), stored, content), block


def _link(child: _Node, name: bytes = b"") -> bytes:
    return _bytes(2, _bytes(1, child.cid) + _bytes(2, name) + _number(3, child.stored))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _binary(codec: int, digest: bytes) -> bytes:
    if len(digest) != _DIGEST_BYTES:
        raise ValueError("the digest of a CID is 32 bytes of SHA-256")
    return b"\x01" + _varint(codec) + _SHA2_256 + digest


def _unusable(cid: str) -> IntegrityError:
    return IntegrityError(f"not a base32 CIDv1 with SHA-256: {cid[:80]!r}", reason="bad_cid")
