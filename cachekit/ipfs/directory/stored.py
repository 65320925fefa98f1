"""What can be asked of a directory wherever it is: everything that only reads."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import CHUNK_BYTES, RAW, cid_from, raw_cid
from cachekit.ipfs.content.unixfs import leaves, read_file
from cachekit.ipfs.directory.layout import (
    BLOCK_BYTES,
    BLOCKS,
    LISTING,
    LISTING_BYTES,
    MARK_BYTES,
    PINS,
    STORE,
    TREE,
    Where,
    decode,
    exactly,
    marked,
    names_of,
    sharded,
    told,
)

PROBE_SECONDS: Final = 2.0
NAME_BYTES: Final = 4096


class Stored:
    """The reading half of `content.engine.Engine`, over `_get` of those who know where the directory is."""

    api: str

    def _get(self, where: Where, limit: int, timeout: float) -> bytes | None:
        """The file at `where`, None where there is none; IntegrityError where it is longer than `limit` bytes."""
        raise NotImplementedError

    def version(self) -> str:
        """How the directory is laid out. TierUnavailable where it is not there, or none of cachekit's."""
        return marked(self._get(STORE, MARK_BYTES, PROBE_SECONDS), self.api)

    def block_get(self, cid: str, *, timeout: float, peers: bool = False) -> bytes | None:
        """The block of `cid`; there is nobody else to ask."""
        del peers
        return self._get(sharded(BLOCKS, cid), BLOCK_BYTES, timeout)

    def read(self, path: str, *, limit: int, timeout: float) -> bytes | None:
        """The file at `path`; IntegrityError `oversized` where it is longer than `limit` bytes."""
        return self._get((TREE, *names_of(path)), limit, timeout)

    def stat(self, path: str, *, timeout: float) -> str | None:
        """What changes with what is at most two levels below `path`."""
        deadline, names = Deadline(timeout), names_of(path)
        listing = self._listing(names, timeout)
        if listing is not None:
            return raw_cid(listing)
        entries = decode(self._listing(names[:-1], deadline.rest) or b"") or {}
        return entries[names[-1]].cid if names[-1] in entries else None

    def list(self, path: str, *, timeout: float) -> list[tuple[str, str, int]] | None:
        """(name, CID, bytes) of each entry of a directory."""
        listing = self._listing(names_of(path), timeout)
        return None if listing is None else told(listing)

    def names(self, path: str, *, timeout: float) -> Sequence[str]:
        """The names in a directory, as its listing has them."""
        return [name for name, _, _ in self.list(path, timeout=timeout) or []]

    def cat(self, cid: str, *, size: int, timeout: float, peers: bool = False) -> bytes | None:
        """The file of `cid`, verified: exactly `size` bytes or IntegrityError; None where a part of it is missing."""
        deadline = Deadline(timeout)
        try:
            return exactly(read_file(cid, lambda part: self.block_get(part, timeout=deadline.rest), limit=size), size)
        except TierError as error:
            if error.reason == "oversized":
                raise IntegrityError(str(error), reason="oversized") from error
            if error.reason == "not_found":
                return None
            raise

    def cat_stream(self, cid: str, *, offset: int, length: int, idle: float) -> Generator[bytes, None, None]:
        """`length` bytes of a file from `offset` on, 1 MiB at a time; TierError `not_found`, or fewer is `truncated`."""
        rest, left = b"", length
        for piece in self._leaves(cid, offset, idle):
            rest += piece
            while left and len(rest) >= min(CHUNK_BYTES, left):
                wanted = min(CHUNK_BYTES, left)
                yield rest[:wanted]
                rest, left = rest[wanted:], left - wanted
            if not left:
                return
        if left:
            raise IntegrityError(f"the file ended {left} bytes before it should", reason="truncated")

    def pinned(self, cid: str, *, timeout: float) -> str | None:
        """The name of the pin of `cid`; None where there is none."""
        name = self._get(sharded(PINS, cid), NAME_BYTES, timeout)
        return None if name is None else name.decode(errors="replace")

    def _leaves(self, cid: str, offset: int, idle: float) -> Iterator[bytes]:
        """The blocks of a file that was cut as `cids.FileCid` does, from the byte `offset` on."""
        for number, digest in enumerate(leaves(cid, lambda node: self.block_get(node, timeout=idle))):
            if (number + 1) * CHUNK_BYTES <= offset:
                continue
            leaf = self.block_get(cid_from(RAW, digest), timeout=idle)
            if leaf is None:
                raise TierError(f"the store lacks a part of {cid}", reason="not_found")
            yield leaf[max(0, offset - number * CHUNK_BYTES) :]

    def _listing(self, names: Where, timeout: float) -> bytes | None:
        return self._get((TREE, *names, LISTING), LISTING_BYTES, timeout)


def read_only(api: str) -> TierError:
    """What every call that would write raises where one only reads."""
    return TierError(f"{api} can only be read from here", reason="read_only")


def late() -> TierUnavailable:
    """What is raised where a call's time is over."""
    return TierUnavailable("the time allowed for the call is over", reason="timeout")
