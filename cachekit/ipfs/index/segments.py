"""The wire format of the shared index: immutable, signed batches of fixed-size entries.

4s magic · u8 version · 16s namespace id · 32s writer · 64s certificate · u64 sequence · u32 count
count × 114 bytes
64s Ed25519 signature of the writer over everything before it
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.credential import TAG_BYTES, Credential, WriterKey, verify

MAX_BYTES: Final = 1 << 20
MAX_TAGS: Final = 4

UNIXFS: Final = 1
ENCRYPTED: Final = 2
PINNED: Final = 4

ENTRY: Final = 0
NAMESPACE_MARK: Final = 1
TAG_MARK: Final = 2
KEY_MARK: Final = 3
UNPIN_MARK: Final = 4

_MAGIC: Final = b"ckix"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">4sB16s32s64sQI")
_ENTRY: Final = struct.Struct(">16sBBB32sQqqff32s")
_SIGNATURE_BYTES: Final = 64
MAX_ENTRIES: Final = (MAX_BYTES - _HEAD.size - _SIGNATURE_BYTES) // _ENTRY.size


class Line(NamedTuple):
    """One line of the index. `kind` is ENTRY or one of the marks; a mark uses only `key` and `created`, its instant.

    `key` is the HMAC of a key (16 bytes), of a tag (8 bytes and zeros), or zeros for the whole namespace. `digest` is
    the SHA-256 in the payload's CID, `size` the payload's bytes as stored, `tags` up to four HMACs of 8 bytes.
    """

    key: bytes
    kind: int = ENTRY
    flags: int = 0
    digest: bytes = bytes(32)
    size: int = 0
    created: int = 0
    expires: int = 0
    grace: float = 0.0
    seconds: float = 0.0
    tags: tuple[bytes, ...] = ()


class Segment(NamedTuple):
    """A verified batch of the writer with this public key."""

    writer: bytes
    sequence: int
    entries: list[Line]


def encode(
    entries: Sequence[Line], *, credential: Credential, namespace: str, writer: WriterKey, sequence: int
) -> bytes:
    """Sign one segment; ValueError unless it holds 1 to MAX_ENTRIES entries."""
    if not 0 < len(entries) <= MAX_ENTRIES:
        raise ValueError(f"a segment holds 1 to {MAX_ENTRIES} entries, not {len(entries)}")
    space = bytes.fromhex(credential.namespace_id(namespace))
    head = _HEAD.pack(_MAGIC, _VERSION, space, writer.public, writer.certificate, sequence, len(entries))
    unsigned = head + b"".join(map(_pack, entries))
    return unsigned + writer.sign(unsigned)


def decode(data: bytes, credential: Credential, namespace: str) -> Segment:
    """Read a segment that a writer certified by the credential's owner wrote for this namespace.

    Raises IntegrityError: `empty_segment`, `oversized`, `not_a_segment`, `unknown_version`, `truncated`,
    `foreign_writer`, `wrong_namespace`, `bad_signature` or `malformed`.
    """
    space, writer, certificate, sequence, count = _head(data)
    if len(data) != _HEAD.size + count * _ENTRY.size + _SIGNATURE_BYTES:
        raise _refused("truncated")
    if not credential.certified(writer, certificate):
        raise _refused("foreign_writer")
    if space.hex() != credential.namespace_id(namespace):
        raise _refused("wrong_namespace")
    if not verify(writer, data[-_SIGNATURE_BYTES:], data[:-_SIGNATURE_BYTES]):
        raise _refused("bad_signature")
    body = memoryview(data)[_HEAD.size : -_SIGNATURE_BYTES]
    return Segment(writer, sequence, [_unpack(fields) for fields in _ENTRY.iter_unpack(body)])


def _head(data: bytes) -> tuple[bytes, bytes, bytes, int, int]:
    if not data:
        raise _refused("empty_segment")
    if len(data) > MAX_BYTES:
        raise _refused("oversized")
    if data[:4] != _MAGIC[: len(data)]:
        raise _refused("not_a_segment")
    if len(data) > 4 and data[4] != _VERSION:
        raise _refused("unknown_version")
    if len(data) < _HEAD.size:
        raise _refused("truncated")
    _, _, space, writer, certificate, sequence, count = _HEAD.unpack_from(data)
    if count == 0:
        raise _refused("empty_segment")
    return space, writer, certificate, sequence, count


def _pack(entry: Line) -> bytes:
    return _ENTRY.pack(
        entry.key,
        entry.kind,
        entry.flags,
        len(entry.tags),
        entry.digest,
        entry.size,
        entry.created,
        entry.expires,
        entry.grace,
        entry.seconds,
        b"".join(entry.tags),
    )


def _unpack(fields: tuple[bytes, int, int, int, bytes, int, int, int, float, float, bytes]) -> Line:
    key, kind, flags, count, digest, size, created, expires, grace, seconds, tags = fields
    if count > MAX_TAGS:
        raise _refused("malformed")
    split = tuple(tags[at : at + TAG_BYTES] for at in range(0, count * TAG_BYTES, TAG_BYTES))
    return Line(key, kind, flags, digest, size, created, expires, grace, seconds, split)


def _refused(reason: str) -> IntegrityError:
    return IntegrityError(f"an index segment was refused: {reason.replace('_', ' ')}", reason=reason)
