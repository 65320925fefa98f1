"""CARv1 files: blocks one after the other, written as they come, and read only where every one of them verifies.

    varint | header: the root | then for each block: varint | CID 36 bytes | block

In constant memory both ways; the order of the blocks means nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import BinaryIO, Final

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import (
    DAG_PB,
    RAW,
    FileCid,
    binary_cid,
    car_header,
    car_section,
    cid_from,
    directory_block,
    text_of,
)

CID_BYTES: Final = 36
BLOCK_BYTES: Final = 2 << 20
"""The largest block that IPFS hands around."""
FAN_OUT: Final = 1000
"""Entries of a directory: well below what Kubo would cut into several blocks."""
_VARINT_BYTES: Final = 4
"""Enough for the largest section; a longer one says more than there may be."""
_NO_ROOT: Final = b"\1" * CID_BYTES
_HEAD: Final = car_header(_NO_ROOT)
_ROOT_AT: Final = _HEAD.index(_NO_ROOT)

Link = tuple[str, int]
"""A CID, and the bytes of its block and all below it."""


class CarWriter:
    """Writes a CAR into `file`, which is empty and can seek. Raises OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.blocks = 0
        file.write(_HEAD)

    def put(self, cid: bytes, block: bytes) -> None:
        """The next block; `cid` is binary."""
        self._file.write(car_section(cid, block))
        self._file.write(block)
        self.blocks += 1

    def file(self, pieces: Iterable[bytes]) -> Link:
        """All blocks of a file; each of the `pieces` but the last has 1 MiB."""
        cid = FileCid(self.put)
        for piece in pieces:
            self.put(binary_cid(cid_from(RAW, hashlib.sha256(piece).digest())), piece)
            cid.update(piece)
        return cid.measured()

    def directory(self, entries: Iterable[tuple[str, Link]]) -> Link:
        """The block of a directory."""
        cid, block, stored = directory_block([(name, *link) for name, link in entries])
        self.put(binary_cid(cid), block)
        return cid, stored

    def shelves(self, links: list[Link]) -> Link:
        """A directory that leads to all `links` by their numbers, through further directories where they are many."""
        while len(links) > FAN_OUT:
            links = [self.shelves(links[at : at + FAN_OUT]) for at in range(0, len(links), FAN_OUT)]
        return self.directory((f"{number:08d}", link) for number, link in enumerate(links))

    def end(self, root: str) -> None:
        """Says which block the others hang from."""
        self._file.seek(0)
        self._file.write(car_header(binary_cid(root)))


class CarFile:
    """A CAR in `file`, which is read to its end once. `read` is told how many bytes that were, piece by piece.

    Raises IntegrityError (`not_a_car`, `truncated`, `oversized`, `bad_cid`, `wrong_bytes`) for a file in which anything is
    not as it should be, and OSError. Where the blocks stand is noted in a temporary file, to be closed.
    """

    def __init__(self, file: BinaryIO, read: Callable[[int], object] = lambda _count: None) -> None:
        self._file = file
        # SQLite's own temporary database: as many blocks as there are, in little memory.
        self._places = sqlite3.connect("")
        self._places.execute("CREATE TABLE places (cid BLOB PRIMARY KEY, at INTEGER, size INTEGER) WITHOUT ROWID")
        try:
            self.root = self._header()
            self.blocks = self._scan(read)
            if self.block(self.root) is None:
                raise IntegrityError("the file lacks the block that the others hang from", reason="truncated")
        except BaseException:  # whatever it was, nobody else will close it
            self.close()
            raise

    def block(self, cid: str) -> bytes | None:
        """The block of `cid`, as `unixfs.BlockOf`: whoever wants it compares it once more."""
        found = self._places.execute("SELECT at, size FROM places WHERE cid = ?", (binary_cid(cid),)).fetchone()
        if found is None:
            return None
        self._file.seek(found[0])
        return self._file.read(found[1])

    def close(self) -> None:
        self._places.close()

    def __enter__(self) -> CarFile:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _header(self) -> str:
        head = self._file.read(len(_HEAD))
        root = head[_ROOT_AT : _ROOT_AT + CID_BYTES]
        # Written again and compared: CBOR has many spellings and sizes, a CAR with one root has one.
        if len(root) != CID_BYTES or head != car_header(root):
            raise IntegrityError("this is no CARv1 with one root", reason="not_a_car")
        return _text(root)

    def _scan(self, read: Callable[[int], object]) -> int:
        count, at = 0, len(_HEAD)
        while (head := self._length()) is not None:
            length, taken = head
            if not CID_BYTES <= length <= CID_BYTES + BLOCK_BYTES:
                raise IntegrityError(f"a block of {length - CID_BYTES} bytes at {at}", reason="oversized")
            section = self._file.read(length)
            if len(section) != length:
                raise _cut(at)
            cid, block = section[:CID_BYTES], section[CID_BYTES:]
            if not _text(cid) or hashlib.sha256(block).digest() != cid[4:]:
                raise IntegrityError(f"the block at {at} is not what its CID names", reason="wrong_bytes")
            where = (cid, at + taken + CID_BYTES, len(block))
            self._places.execute("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", where)
            at, count = at + taken + length, count + 1
            read(taken + length)
        return count

    def _length(self) -> tuple[int, int] | None:
        """The next section's length, and the bytes that say it; None at the end of the file."""
        value = 0
        for number in range(_VARINT_BYTES):
            byte = self._file.read(1)
            if not byte and not number:
                return None
            if not byte:
                raise _cut(self._file.tell())
            value |= (byte[0] & 0x7F) << 7 * number
            if byte[0] < 0x80 and (byte[0] or not number):
                return value, number + 1
            if byte[0] < 0x80:
                break
        raise IntegrityError("a length in the file is longer than any may be", reason="oversized")


def _text(binary: bytes) -> str:
    cid = text_of(binary)
    binary_cid(cid)
    if binary[1] not in (RAW, DAG_PB):  # no hash covers it
        raise IntegrityError(f"a block of another kind than files have: {cid}", reason="bad_cid")
    return cid


def _cut(at: int) -> IntegrityError:
    return IntegrityError(f"the file ends within a block, behind byte {at}", reason="truncated")
