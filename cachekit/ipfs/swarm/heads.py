"""A head: a writer's word on what its part of a namespace's index is now, by the root of its directory.

4s magic · u8 version · 16s namespace id · 32s writer · u64 sequence · 32s root digest · u64 bytes
u8 length of the writer's IPNS name · u16 length of its certificate · both
64s Ed25519 signature of the writer over everything before it
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import DAG_PB, cid_from, digest_of
from cachekit.ipfs.trust.certificates import MOST_BYTES as MOST_BYTES_OF_CHAIN
from cachekit.ipfs.trust.ciphers import verify
from cachekit.ipfs.trust.credential import Credential, WriterKey, writer_id

_MAGIC: Final = b"ckhd"
_VERSION: Final = 1
_FIXED: Final = struct.Struct(">4sB16s32sQ32sQBH")
_SIGNATURE_BYTES: Final = 64
_NAME_BYTES: Final = 100
_LARGEST: Final = 1 << 53
MOST_BYTES: Final = _FIXED.size + _NAME_BYTES + MOST_BYTES_OF_CHAIN + _SIGNATURE_BYTES


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
    where = bytes.fromhex(space), writer.public, sequence, digest_of(root), size
    fixed = _FIXED.pack(_MAGIC, _VERSION, *where, len(called), len(writer.certificate))
    unsigned = fixed + called + writer.certificate
    return Head(space, writer.id, sequence, root, size, name, unsigned + writer.sign(unsigned))


def read(text: bytes, credential: Credential) -> Head:
    """Read a head that a certified writer signed. Raises IntegrityError `bad_head`, `bad_signature`, and as `issuer`."""
    if len(text) < _FIXED.size + _SIGNATURE_BYTES or len(text) > MOST_BYTES:
        raise IntegrityError("a head has another length", reason="bad_head")
    magic, version, space, public, sequence, digest, size, named, certified = _FIXED.unpack_from(text)
    end = _FIXED.size + named
    if (magic, version) != (_MAGIC, _VERSION) or len(text) != end + certified + _SIGNATURE_BYTES:
        raise IntegrityError("this is no head", reason="bad_head")
    credential.issuer(public, text[end : end + certified], space)
    if not verify(public, text[-_SIGNATURE_BYTES:], text[:-_SIGNATURE_BYTES]):
        raise IntegrityError("a head that its writer did not sign", reason="bad_signature")
    name = text[_FIXED.size : end]
    if (name and not name.isalnum()) or sequence >= _LARGEST or size >= _LARGEST:
        raise IntegrityError("a head that says what cannot be", reason="bad_head")
    return Head(space.hex(), writer_id(public), sequence, cid_from(DAG_PB, digest), size, name.decode("ascii"), text)
