"""A head: a writer's word on what its part of a namespace's index is now, by the root of its directory.

4s magic · u8 version · 16s namespace id · 32s writer · 64s certificate · u64 sequence · 32s root digest · u64 bytes
u8 length · the writer's IPNS name · 64s Ed25519 signature of the writer over everything before it
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import DAG_PB, cid_from, digest_of
from cachekit.ipfs.trust.credential import Credential, WriterKey, verify, writer_id

_MAGIC: Final = b"ckhd"
_VERSION: Final = 1
_FIXED: Final = struct.Struct(">4sB16s32s64sQ32sQB")
_SIGNATURE_BYTES: Final = 64
_NAME_BYTES: Final = 100
MOST_BYTES: Final = _FIXED.size + _NAME_BYTES + _SIGNATURE_BYTES


class Head(NamedTuple):
    """`space` is the namespace's id, 32 hex characters; `root` the CID of the writer's directory as of `sequence`.

    `size` is how many bytes its segments are; `name` the IPNS name that names the writer's newest heads, or ''. `text`
    is what was signed, to be passed on.
    """

    space: str
    writer: str
    sequence: int
    root: str
    size: int
    name: str
    text: bytes


def sign(
    credential: Credential, writer: WriterKey, namespace: str, sequence: int, root: str, size: int, name: str
) -> Head:
    """The head of this machine's writer."""
    space, called = credential.namespace_id(namespace), name.encode("ascii")
    fixed = _FIXED.pack(
        _MAGIC,
        _VERSION,
        bytes.fromhex(space),
        writer.public,
        writer.certificate,
        sequence,
        digest_of(root),
        size,
        len(called),
    )
    unsigned = fixed + called
    return Head(space, writer.id, sequence, root, size, name, unsigned + writer.sign(unsigned))


def read(text: bytes, credential: Credential) -> Head:
    """Read a head that a certified writer signed. Raises IntegrityError `bad_head`, `foreign_writer` or `bad_signature`."""
    if len(text) < _FIXED.size + _SIGNATURE_BYTES or len(text) > MOST_BYTES:
        raise IntegrityError("a head has another length", reason="bad_head")
    magic, version, space, public, certificate, sequence, digest, size, length = _FIXED.unpack_from(text)
    if (magic, version) != (_MAGIC, _VERSION) or len(text) != _FIXED.size + length + _SIGNATURE_BYTES:
        raise IntegrityError("this is no head", reason="bad_head")
    if not credential.certified(public, certificate):
        raise IntegrityError("a head of a writer that nobody certified", reason="foreign_writer")
    if not verify(public, text[-_SIGNATURE_BYTES:], text[:-_SIGNATURE_BYTES]):
        raise IntegrityError("a head that its writer did not sign", reason="bad_signature")
    name = text[_FIXED.size : -_SIGNATURE_BYTES]
    if (not name.isalnum() and name) or sequence >= 1 << 53:
        raise IntegrityError("a head that says what cannot be", reason="bad_head")
    return Head(space.hex(), writer_id(public), sequence, cid_from(DAG_PB, digest), size, name.decode("ascii"), text)
