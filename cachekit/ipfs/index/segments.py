"""The wire format of the shared index: immutable, signed batches of fixed-size lines.

4s magic · u8 version · 16s namespace id · 32s writer · certificate · u64 sequence · u32 count
certificate: in version 1 the owner's signature, 64s; in version 2 u16 length and the chain of an invitation
count × 114 bytes
64s Ed25519 signature of the writer over everything before it
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.trust.certificates import MOST_BYTES as MOST_BYTES_OF_CHAIN
from cachekit.ipfs.trust.certificates import OWNER, Issued
from cachekit.ipfs.trust.ciphers import verify
from cachekit.ipfs.trust.credential import SIGNATURE_BYTES, TAG_BYTES, Credential, WriterKey

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
FUNCTION_MARK: Final = 8

_MAGIC: Final = b"ckix"
_VERSION: Final = 1
_INVITED: Final = 2
_START: Final = struct.Struct(">4sB16s32s")
_LENGTH: Final = struct.Struct(">H")
_REST: Final = struct.Struct(">QI")
_LONGEST_HEAD: Final = _START.size + _LENGTH.size + MOST_BYTES_OF_CHAIN + _REST.size
_LINE: Final = struct.Struct(">16sBBB32sQqqff32s")
_SIGNATURE_BYTES: Final = 64
_LARGEST: Final = (1 << 63) - 1
MAX_LINES: Final = (MAX_BYTES - _LONGEST_HEAD - _SIGNATURE_BYTES) // _LINE.size


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
    """A verified batch of the writer with this public key, who writes under an invitation of `issuer`."""

    writer: bytes
    sequence: int
    lines: list[Line]
    issuer: Issued = OWNER


def encode(lines: Sequence[Line], *, credential: Credential, namespace: str, writer: WriterKey, sequence: int) -> bytes:
    """Sign one segment; ValueError unless it holds 1 to MAX_LINES."""
    if not 0 < len(lines) <= MAX_LINES:
        raise ValueError(f"a segment holds 1 to {MAX_LINES} lines, not {len(lines)}")
    space = bytes.fromhex(credential.namespace_id(namespace))
    certificate, version = writer.certificate, _VERSION
    if len(certificate) != SIGNATURE_BYTES:
        certificate, version = _LENGTH.pack(len(certificate)) + certificate, _INVITED
    head = _START.pack(_MAGIC, version, space, writer.public) + certificate + _REST.pack(sequence, len(lines))
    unsigned = head + b"".join(map(_pack, lines))
    return unsigned + writer.sign(unsigned)


def decode(data: bytes, credential: Credential, namespace: str) -> Segment:
    """Read a segment that a writer certified by the credential's owner wrote for this namespace.

    Raises IntegrityError: `empty_segment`, `oversized`, `not_a_segment`, `unknown_version`, `truncated`,
    `foreign_writer`, `expired_certificate`, `wrong_namespace`, `bad_signature` or `malformed`.
    """
    head = _head(data)
    if len(data) != head.size + head.held * _LINE.size + _SIGNATURE_BYTES:
        raise _refused("truncated")
    issuer = credential.issuer(head.writer, head.certificate, head.space)
    if head.space.hex() != credential.namespace_id(namespace):
        raise _refused("wrong_namespace")
    if not verify(head.writer, data[-_SIGNATURE_BYTES:], data[:-_SIGNATURE_BYTES]):
        raise _refused("bad_signature")
    body = memoryview(data)[head.size : -_SIGNATURE_BYTES]
    return Segment(head.writer, head.sequence, [_unpack(fields) for fields in _LINE.iter_unpack(body)], issuer)


class _Head(NamedTuple):
    space: bytes
    writer: bytes
    certificate: bytes
    sequence: int
    held: int
    size: int


def _head(data: bytes) -> _Head:
    if not data:
        raise _refused("empty_segment")
    if len(data) > MAX_BYTES:
        raise _refused("oversized")
    if data[:4] != _MAGIC[: len(data)]:
        raise _refused("not_a_segment")
    if len(data) > 4 and data[4] not in (_VERSION, _INVITED):
        raise _refused("unknown_version")
    try:
        _, version, space, writer = _START.unpack_from(data)
        at, length = _START.size, SIGNATURE_BYTES
        if version == _INVITED:
            at, length = at + _LENGTH.size, _LENGTH.unpack_from(data, at)[0]
        sequence, count = _REST.unpack_from(data, at + length)
    except struct.error:
        raise _refused("truncated") from None
    if count == 0:
        raise _refused("empty_segment")
    return _Head(space, writer, data[at : at + length], sequence, count, at + length + _REST.size)


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
