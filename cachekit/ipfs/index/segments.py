"""The wire format of the shared index: immutable, signed batches of fixed-size lines.

4s magic · u8 version · 16s namespace id · 32s writer · 64s certificate · u64 sequence · u32 count
count × 114 bytes
64s Ed25519 signature of the writer over everything before it
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.trust.credential import TAG_BYTES, Credential, WriterKey, verify

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
PIN_END: Final = 5
"""`expires` is when the pin ends of the entry with this `key` and `created`."""

_MAGIC: Final = b"ckix"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">4sB16s32s64sQI")
_LINE: Final = struct.Struct(">16sBBB32sQqqff32s")
_SIGNATURE_BYTES: Final = 64
_LARGEST: Final = (1 << 63) - 1
MAX_LINES: Final = (MAX_BYTES - _HEAD.size - _SIGNATURE_BYTES) // _LINE.size


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
    lines: list[Line]


def encode(lines: Sequence[Line], *, credential: Credential, namespace: str, writer: WriterKey, sequence: int) -> bytes:
    """Sign one segment; ValueError unless it holds 1 to MAX_LINES."""
    if not 0 < len(lines) <= MAX_LINES:
        raise ValueError(f"a segment holds 1 to {MAX_LINES} lines, not {len(lines)}")
    space = bytes.fromhex(credential.namespace_id(namespace))
    head = _HEAD.pack(_MAGIC, _VERSION, space, writer.public, writer.certificate, sequence, len(lines))
    unsigned = head + b"".join(map(_pack, lines))
    return unsigned + writer.sign(unsigned)


def decode(data: bytes, credential: Credential, namespace: str) -> Segment:
    """Read a segment that a writer certified by the credential's owner wrote for this namespace.

    Raises IntegrityError: `empty_segment`, `oversized`, `not_a_segment`, `unknown_version`, `truncated`,
    `foreign_writer`, `wrong_namespace`, `bad_signature` or `malformed`.
    """
    space, writer, certificate, sequence, count = _head(data)
    if len(data) != _HEAD.size + count * _LINE.size + _SIGNATURE_BYTES:
        raise _refused("truncated")
    if not credential.certified(writer, certificate):
        raise _refused("foreign_writer")
    if space.hex() != credential.namespace_id(namespace):
        raise _refused("wrong_namespace")
    if not verify(writer, data[-_SIGNATURE_BYTES:], data[:-_SIGNATURE_BYTES]):
        raise _refused("bad_signature")
    body = memoryview(data)[_HEAD.size : -_SIGNATURE_BYTES]
    return Segment(writer, sequence, [_unpack(fields) for fields in _LINE.iter_unpack(body)])


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


def checked(line: Line) -> Line:
    """`line`; IntegrityError `malformed` for one whose numbers are none, or are too large for a table."""
    if not (0 <= line.size <= _LARGEST and line.grace >= 0 and 0 <= line.seconds < math.inf):
        raise _refused("malformed")
    return line


def split_tags(tags: bytes) -> tuple[bytes, ...]:
    """The HMACs that stand one after the other in `tags`."""
    return tuple(tags[at : at + TAG_BYTES] for at in range(0, len(tags), TAG_BYTES))


def _pack(line: Line) -> bytes:
    *head, tags = line
    return _LINE.pack(*head[:3], len(tags), *head[3:], b"".join(tags))


def _unpack(fields: tuple[Any, ...]) -> Line:
    key, kind, flags, count, *rest, tags = fields
    if count > MAX_TAGS:
        raise _refused("malformed")
    return checked(Line._make((key, kind, flags, *rest, split_tags(tags[: count * TAG_BYTES]))))


def _refused(reason: str) -> IntegrityError:
    return IntegrityError(f"an index segment was refused: {reason.replace('_', ' ')}", reason=reason)
