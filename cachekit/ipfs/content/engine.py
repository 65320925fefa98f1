"""The seam between sharing and what keeps the bytes: Kubo is one engine, a directory is another.

`tests/ipfs/test_engines.py` holds each of them to what is said here.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from typing import Protocol


class Engine(Protocol):
    """Blocks by CID, small files by path, and pins. CIDs are text (base32 CIDv1); a path begins with `/`.

    Every call is over within its `timeout`, in seconds; `add_stream` and `cat_stream` have no deadline: only `idle`
    seconds in which nothing moves end them. All raise TierError and nothing else: TierUnavailable where nobody answered
    in time, IntegrityError for an answer that cannot be meant, TierFull where there is no room. "Not there" is None, not
    an error. Bytes that come back need NOT be verified: the caller compares them with the CID. Safe from any thread,
    and in a forked child.
    """

    @property
    def api(self) -> str:
        """Where it is, as the setting that names it would say."""
        ...

    @property
    def kind(self) -> str:
        """What it is, for people; `version` follows."""
        ...

    @property
    def writable(self) -> bool:
        """Whether the calls that store are worth trying; where they are not, they raise TierError `read_only`."""
        ...

    def version(self) -> str:
        """Its version, from where it is by now: the breaker's probe. TierUnavailable where it cannot be used."""
        ...

    def block_get(self, cid: str, *, timeout: float, peers: bool = False) -> bytes | None:
        """The block of `cid` if it is here; with `peers` who has others to ask asks them, for as long as it may."""
        ...

    def import_blocks(self, blocks: Sequence[tuple[bytes, bytes]], *, timeout: float) -> None:
        """Store (binary CID, block) pairs, unpinned; TierError for a block under another's CID, which is not stored."""
        ...

    def add(self, data: bytes, *, timeout: float) -> str:
        """Store `data` unpinned as a file, and give its CID: the one `cids.file_cid` computes."""
        ...

    def cat(self, cid: str, *, size: int, timeout: float, peers: bool = False) -> bytes | None:
        """The file of `cid`: exactly `size` bytes or IntegrityError; None, or that, where a part of it is missing."""
        ...

    def add_stream(
        self, pieces: Iterable[bytes], *, size: int, pin_name: str | None, idle: float, until: float = math.inf
    ) -> str:
        """Store `size` bytes as a file, pinned under a name unless that is None; its CID is what `cids.FileCid` computes.

        `until`, an instant of `time.monotonic`, ends every wait. What `pieces` raises passes through, and no file is
        stored.
        """
        ...

    def cat_stream(self, cid: str, *, offset: int, length: int, idle: float) -> Generator[bytes, None, None]:
        """`length` bytes of a file from `offset` on, 1 MiB at a time; TierError `not_found`, or fewer is `truncated`."""
        ...

    def write(self, path: str, data: bytes, *, timeout: float) -> None:
        """Make `data` the file at `path`, for good and all at once; directories are made as needed."""
        ...

    def read(self, path: str, *, limit: int, timeout: float) -> bytes | None:
        """The file at `path`; IntegrityError `oversized` where it is longer than `limit` bytes."""
        ...

    def stat(self, path: str, *, timeout: float) -> str | None:
        """What changes whenever something at most two levels below `path` does; of a file the CID that `list` gives it."""
        ...

    def list(self, path: str, *, timeout: float) -> list[tuple[str, str, int]] | None:
        """(name, CID, bytes) of each entry of a directory; names and CIDs may be anything that somebody wrote."""
        ...

    def remove(self, path: str, *, timeout: float) -> None:
        """Remove what is at `path`, with all below it; nothing there is fine."""
        ...

    def pin(self, cid: str, name: str, *, timeout: float) -> None:
        """Keep what is here under `cid`, with all below it; TierError `not_found` where that is missing.

        Where a part below it is missing, that or `timeout`.
        """
        ...

    def pinned(self, cid: str, *, timeout: float) -> str | None:
        """The name of the pin of `cid`, '' for one without; None where there is none."""
        ...

    def unpin(self, cid: str, *, timeout: float) -> None:
        """Undo `pin`; not pinned is fine."""
        ...

    def link(self, cid: str, path: str, *, timeout: float) -> None:
        """Keep what is here under `cid` while something is at `path`; TierError `not_found`. What is there already stays."""
        ...

    def names(self, path: str, *, timeout: float) -> Sequence[str]:
        """The names in a directory, those of links too; nothing where there is none."""
        ...

    def collect(self, *, timeout: float) -> int:
        """Remove blocks that nobody needs any more, if that is the business of who uses it; how many."""
        ...

    def close(self) -> None:
        """Drop connections. A later call opens new ones."""
        ...
