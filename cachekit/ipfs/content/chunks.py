"""Files sealed in chunks, each of which opens without the others.

    file      | PLAIN_BYTES          | PLAIN_BYTES          | the rest, 0 … PLAIN_BYTES |
    stored    | nonce 12 | sealed plaintext | tag 16 | …

A whole chunk is stored in PLAIN_BYTES + OVERHEAD_BYTES = (2^20 - 28) + (12 + 16) = 2^20 bytes: one leaf of the UnixFS
file that it becomes part of. An empty file is one chunk of 28 bytes, so that emptiness is authenticated too.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import BinaryIO, Final

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import CHUNK_BYTES
from cachekit.ipfs.trust.ciphers import Cipher
from cachekit.ipfs.trust.credential import Credential, tried

OVERHEAD_BYTES: Final = 12 + 16
"""Nonce and tag of one chunk."""

PLAIN_BYTES: Final = CHUNK_BYTES - OVERHEAD_BYTES
"""Plaintext in every chunk but the last: 1 048 548."""


class ChunkCipher:
    """AES-256-GCM under `key`, chunk by chunk; keys are 32 bytes, `associated` is what everything sealed is bound to.

    A chunk is bound to its index and to the size of the whole file: chunks cannot change places, be cut off, or be
    added. Equal files seal equally. That a chunk is of *this* file, and not of another one of the same size, is what
    the file's own digest says.
    """

    def __init__(self, key: bytes, nonce_key: bytes, associated: bytes) -> None:
        self._key = key
        self._nonce_key = nonce_key
        self._associated = associated
        self._older: list[ChunkCipher] = []

    @classmethod
    def of(cls, credential: Credential, namespace: str) -> ChunkCipher:
        """The cipher of a namespace, whose keys are used for nothing but chunks."""
        binding = bytes.fromhex(credential.namespace_id(namespace))
        keys = (credential.generations(purpose, namespace) for purpose in ("chunk-seal", "chunk-nonce"))
        newest, *older = [cls(key, nonce_key, binding) for key, nonce_key in zip(*keys, strict=True)]
        newest._older = older
        return newest

    def sealed(self, stream: BinaryIO, size: int) -> Iterator[bytes]:
        """The `size` bytes of `stream`, chunk by chunk; IntegrityError `changed` where it has more or less."""
        for index, piece in enumerate(pieces(stream, size, PLAIN_BYTES)):
            yield self._cipher(index, size).seal(piece)

    def opened(self, index: int, chunk: bytes, size: int) -> bytes:
        """The plaintext of chunk `index` of a file of `size` bytes; IntegrityError `unsealable` for any other chunk."""
        plain = tried([self, *self._older], lambda one: one._cipher(index, size).unseal(chunk))
        if len(plain) != min(PLAIN_BYTES, size - index * PLAIN_BYTES):
            raise IntegrityError("a sealed chunk has another size than its place", reason="unsealable")
        return plain

    def _cipher(self, index: int, size: int) -> Cipher:
        binding = index.to_bytes(8, "big") + size.to_bytes(8, "big")
        # The binding is in the nonce as well: one nonce under two bindings would give GCM's authentication key away.
        return Cipher(self._key, hmac.digest(self._nonce_key, binding, "sha256"), self._associated + binding)


def sealed_size(size: int) -> int:
    """Bytes that a file of `size` bytes is stored in."""
    return size + OVERHEAD_BYTES * max(1, -(-size // PLAIN_BYTES))


def pieces(stream: BinaryIO, size: int, width: int) -> Iterator[bytes]:
    """The `size` bytes of `stream`, `width` at a time; IntegrityError `changed` where it has more or less."""
    for at in range(0, max(size, 1), width):
        piece = stream.read(min(width, size - at))
        if len(piece) != min(width, size - at):
            raise _changed()
        yield piece
    if stream.read(1):
        raise _changed()


def _changed() -> IntegrityError:
    return IntegrityError("the file changed while it was read", reason="changed")
