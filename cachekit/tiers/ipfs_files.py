"""A file's bytes from its blocks, each verified before anything in it is believed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from cachekit.cids import DAG_PB, RAW, binary_cid
from cachekit.errors import IntegrityError, TierError

_DEPTH: Final = 16
_LINK: Final = 2
_DATA: Final = 1
_HASH: Final = 1
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
        if number == _LINK and isinstance(value, bytes):
            links += [_text(part) for name, part in _fields(value) if name == _HASH and isinstance(part, bytes)]
        elif number == _DATA and isinstance(value, bytes):
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
