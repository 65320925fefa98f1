"""Files sealed in chunks, each of which opens without the others.

    file      | PLAIN_BYTES          | PLAIN_BYTES          | the rest, 0 … PLAIN_BYTES |
    stored    | nonce 12 | sealed plaintext | tag 16 | …

A whole chunk is stored in PLAIN_BYTES + OVERHEAD_BYTES = (2^20 - 28) + (12 + 16) = 2^20 bytes: one leaf of the UnixFS
file that it becomes part of. An empty file is one chunk of 28 bytes, so that emptiness is authenticated too.

A stored file from its k-th chunk on, each chunk verified as it comes.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import BinaryIO, Final

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.cids import CHUNK_BYTES
from cachekit.ipfs.content.unixfs import leaves
from cachekit.ipfs.credential import Cipher, Credential
from cachekit.ipfs.kubo.transport import KuboTransport

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

    @classmethod
    def of(cls, credential: Credential, namespace: str) -> ChunkCipher:
        """The cipher of a namespace, whose keys are used for nothing but chunks."""

        def derived(purpose: str) -> bytes:
            return hmac.digest(credential.secret, f"cachekit 1 {purpose}\0{namespace}".encode(), "sha256")

        return cls(derived("chunk-seal"), derived("chunk-nonce"), bytes.fromhex(credential.namespace_id(namespace)))

    def sealed(self, stream: BinaryIO, size: int) -> Iterator[bytes]:
        """The `size` bytes of `stream`, chunk by chunk; IntegrityError `changed` where it has more or less."""
        for index, piece in enumerate(pieces(stream, size, PLAIN_BYTES)):
            yield self._cipher(index, size).seal(piece)

    def opened(self, index: int, chunk: bytes, size: int) -> bytes:
        """The plaintext of chunk `index` of a file of `size` bytes; IntegrityError `unsealable` for any other chunk."""
        plain = self._cipher(index, size).unseal(chunk)
        if len(plain) != min(PLAIN_BYTES, size - index * PLAIN_BYTES):
            raise IntegrityError("a sealed chunk has another size than its place", reason="unsealable")
        return plain

    def _cipher(self, index: int, size: int) -> Cipher:
        binding = index.to_bytes(8, "big") + size.to_bytes(8, "big")
        # The binding is in the nonce as well: one nonce under two bindings would give GCM's authentication key away.
        return Cipher(self._key, hmac.digest(self._nonce_key, binding, "sha256"), self._associated + binding)


def sealed_size(size: int) -> int:
    """Bytes that a file of `size` bytes is stored in."""
    return size + OVERHEAD_BYTES * chunk_count(size, PLAIN_BYTES)


def chunk_count(size: int, width: int) -> int:
    """How many chunks of `width` bytes hold `size`; an empty file has one."""
    return max(1, -(-size // width))


def pieces(stream: BinaryIO, size: int, width: int) -> Iterator[bytes]:
    """The `size` bytes of `stream`, `width` at a time; IntegrityError `changed` where it has more or less."""
    for at in range(0, max(size, 1), width):
        wanted = min(width, size - at)
        piece = stream.read(wanted)
        if len(piece) != wanted:
            raise _changed()
        yield piece
    if stream.read(1):
        raise _changed()


def _changed() -> IntegrityError:
    return IntegrityError("the file changed while it was read", reason="changed")


class Source:
    """The file of `size` bytes behind `cid`. `took` hears of bytes that came over the wire, on any thread.

    `idle` is in seconds. With `offline` only what the daemon itself has is read.
    """

    def __init__(
        self,
        transport: KuboTransport,
        cid: str,
        size: int,
        cipher: ChunkCipher | None,
        took: Callable[[int], None],
        *,
        idle: float,
        offline: bool,
    ) -> None:
        self._transport = transport
        self._cid = cid
        self._size = size
        self._cipher = cipher
        self._took = took
        self._idle = idle
        self._offline = offline
        self.width = PLAIN_BYTES if cipher else CHUNK_BYTES
        """Bytes of the file in every chunk but the last."""
        self._stored = sealed_size(size) if cipher else size
        self._count = chunk_count(size, self.width)

    def chunks(self, first: int) -> Generator[bytes, None, None]:
        """The plain chunks from number `first` on. Raises TierError; IntegrityError for a chunk that does not verify."""
        digests = islice(self._digests(), first, None)
        at = first * CHUNK_BYTES
        found = self._transport.cat_stream(
            self._cid, offset=at, length=self._stored - at, idle=self._idle, offline=self._offline
        )
        with contextlib.closing(found):
            for index, piece in enumerate(found, first):
                expected = next(digests, None)
                if expected is None:
                    raise self._other_size()
                yield self._verified(index, piece, expected)
        if self._stored and next(digests, None) is not None:
            raise self._other_size()

    def _digests(self) -> Iterator[bytes]:
        # What is sealed verifies by itself; the nodes above it need not be asked for.
        return leaves(self._cid, self._node) if self._cipher is None else iter([b""] * self._count)

    def _node(self, cid: str) -> bytes | None:
        ask = self._transport.block_get if self._offline else self._transport.block_find
        block = ask(cid, timeout=self._idle)
        self._took(len(block or b""))
        return block

    def _verified(self, index: int, piece: bytes, expected: bytes) -> bytes:
        self._took(len(piece))
        if self._cipher is not None:
            return self._cipher.opened(index, piece, self._size)
        if hashlib.sha256(piece).digest() != expected:
            raise IntegrityError("the daemon gave other bytes than it was asked for", reason="wrong_bytes")
        return piece

    def _other_size(self) -> IntegrityError:
        return IntegrityError(f"the stored file has not the {self._size} bytes it should have", reason="oversized")
