"""A UnixFS file's bytes, or the digests of its leaves, from its blocks: each is verified before it is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.content.cids import DAG_PB, RAW, binary_cid, digest_of, text_of

BlockOf = Callable[[str], bytes | None]
"""CID → the block as somebody gave it, or None."""

_DEPTH: Final = 16
_FEWEST_PARTS: Final = 1024
_PART_BYTES: Final = 1024
"""Nobody cuts files into smaller parts than these."""
_DATA: Final = 1
_LINK: Final = 2
_LINK_HASH: Final = 1
_LINK_NAME: Final = 2
_UNIXFS_TYPE: Final = 1
_UNIXFS_DATA: Final = 2
_FILE_TYPES: Final = (0, 2)
_DIRECTORY: Final = 1
_SHARDED: Final = 5


def read_file(cid: str, block_of: BlockOf, *, limit: int) -> bytes:
    """All of a file, however it was cut; raises as `pieces`."""
    return b"".join(pieces(cid, block_of, limit=limit))


def pieces(cid: str, block_of: BlockOf, *, limit: int) -> Iterator[bytes]:
    """The bytes of a file in order: at most `limit`, in as many parts as a file of that size may have.

    Raises IntegrityError for bytes that do not verify or that are no file, TierError `not_found` for a missing part,
    `oversized` for what is larger: a small DAG may name one part any number of times.
    """
    size, known = 0, ("", b"")
    for count, part in enumerate(_parts(cid, block_of, 0), 1):
        if isinstance(part, str) and part != known[0]:
            known = part, _verified(part, block_of)
        piece = known[1] if isinstance(part, str) else part
        size += len(piece)
        if size > limit or count > _FEWEST_PARTS + limit // _PART_BYTES:
            message = f"{cid} has more than {limit} bytes; limit= or CACHEKIT_MEMORY_LIMIT says how many it may have"
            raise TierError(message, reason="oversized")
        yield piece


def blocks(cid: str, block_of: BlockOf) -> Iterator[tuple[bytes, bytes]]:
    """(binary CID, block) of everything that a file is made of, verified, each once. Raises as `leaves`."""
    return _blocks(cid, block_of, set(), 0)


def _blocks(cid: str, block_of: BlockOf, seen: set[str], depth: int) -> Iterator[tuple[bytes, bytes]]:
    # A small DAG may name one part any number of times.
    if cid in seen:
        return
    seen.add(cid)
    block = _verified(cid, block_of)
    yield binary_cid(cid), block
    if binary_cid(cid)[1] == RAW:
        return
    if binary_cid(cid)[1] != DAG_PB or depth == _DEPTH:
        raise _no_file()
    for link in _node(block)[0]:
        yield from _blocks(link, block_of, seen, depth + 1)


def directory(cid: str, block_of: BlockOf) -> list[tuple[str, str]] | None:
    """(name, CID) of what a directory has, None for what is none; IntegrityError `not_a_file` for one in several blocks."""
    if binary_cid(cid)[1] != DAG_PB:
        return None
    node = _fields(_verified(cid, block_of))[1]
    kind = _fields(b"".join(node.get(_DATA, ())))[0].get(_UNIXFS_TYPE)
    if kind == _SHARDED:
        raise IntegrityError(f"{cid} is a directory in more than one block, which is not read", reason="not_a_file")
    return [_entry(link) for link in node.get(_LINK, ())] if kind == _DIRECTORY else None


def _entry(link: bytes) -> tuple[str, str]:
    fields = _fields(link)[1]
    try:
        return fields[_LINK_NAME][0].decode(), text_of(fields[_LINK_HASH][0])
    except (LookupError, UnicodeDecodeError):
        raise _no_file() from None


def leaves(cid: str, block_of: BlockOf) -> Iterator[bytes]:
    """The SHA-256 of each leaf of a file, in order; only the nodes above them are asked for, each when it is needed.

    Raises as `read_file`, also for a file whose bytes do not all stand in raw leaves.
    """
    for part in _parts(cid, block_of, 0):
        if not isinstance(part, str):
            raise _no_file()
        yield digest_of(part)


def below(cid: str, block_of: BlockOf) -> list[str]:
    """What a block links to, whatever it is of; nobody is asked for a raw one, which has no links. Raises as `pieces`."""
    return _links(_fields(_verified(cid, block_of))[1]) if binary_cid(cid)[1] == DAG_PB else []


def _parts(cid: str, block_of: BlockOf, depth: int) -> Iterator[str | bytes]:
    """The CIDs of the raw leaves, and the bytes that stand in the nodes themselves."""
    codec = binary_cid(cid)[1]
    if codec == RAW:
        yield cid
        return
    if codec != DAG_PB or depth == _DEPTH:
        raise _no_file()
    links, data = _node(_verified(cid, block_of))
    if data or not links:
        yield data
    for link in links:
        yield from _parts(link, block_of, depth + 1)


def _verified(cid: str, block_of: BlockOf) -> bytes:
    block = block_of(cid)
    if block is None:
        raise TierError(f"the daemon does not have {cid}", reason="not_found")
    if hashlib.sha256(block).digest() != digest_of(cid):
        raise IntegrityError("the daemon gave other bytes than it was asked for", reason="wrong_bytes")
    return block


def _node(block: bytes) -> tuple[list[str], bytes]:
    """The CIDs that a node of a file links to, and the bytes of the file that stand in itself."""
    _, node = _fields(block)
    links = _links(node)
    numbers, unixfs = _fields(b"".join(node.get(_DATA, ())))
    if numbers.get(_UNIXFS_TYPE) not in _FILE_TYPES:
        raise _no_file()
    return links, b"".join(unixfs.get(_UNIXFS_DATA, ()))


def _links(node: dict[int, list[bytes]]) -> list[str]:
    return [text_of(cid) for link in node.get(_LINK, ()) for cid in _fields(link)[1].get(_LINK_HASH, ())]


def _fields(message: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """The numbers and the strings in a message of protobuf, by their field."""
    numbers, strings = dict[int, int](), dict[int, list[bytes]]()
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 0:
            numbers[tag >> 3] = value
        elif tag & 7 == 2 and at + value <= len(message):
            strings.setdefault(tag >> 3, []).append(message[at : at + value])
            at += value
        else:
            raise _no_file()
    return numbers, strings


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


def _no_file() -> IntegrityError:
    return IntegrityError("what the CID names is not a file", reason="not_a_file")
