"""A stored file from its k-th chunk on, each chunk verified as it comes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator
from itertools import islice

from cachekit.chunked import PLAIN_BYTES, ChunkCipher, chunk_count, sealed_size
from cachekit.cids import CHUNK_BYTES
from cachekit.errors import IntegrityError
from cachekit.kubo import Transport
from cachekit.unixfs import leaves


class Source:
    """The file of `size` bytes behind `cid`. `took` hears of bytes that came over the wire, on any thread.

    `idle` is in seconds. With `offline` only what the daemon itself has is read.
    """

    def __init__(
        self,
        transport: Transport,
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
