"""Where the segments of a writer stand: in the MFS of a daemon, or below the root that a head names."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.unixfs import BlockOf, directory, read_file
from cachekit.ipfs.index.rows import SegmentFile
from cachekit.ipfs.index.segments import MAX_BYTES
from cachekit.ipfs.index.table import Table

ROOT: Final = "/cachekit/v1"
ROSTERS: Final = f"{ROOT}/rosters"
_WRITING_SECONDS: Final = 0.1
"""Far longer than it takes Kubo to write a segment."""
_NO_SEGMENT: Final = ("not_a_file", "oversized", "bad_cid")
_SEGMENT: Final = re.compile(r"\d{16}")


class Shelf(Protocol):
    """The segments of one writer. Both raise TierError."""

    def list(self, settled: Callable[[str, str], bool]) -> list[SegmentFile]:
        """All of them; `settled(name, CID)` says whether a file was read, and so need not be looked at again."""
        ...

    def read(self, file: SegmentFile) -> bytes | None:
        """One of them; None where it is gone, IntegrityError `oversized`."""
        ...


@dataclass(frozen=True)
class MfsShelf:
    """A directory in the daemon's MFS; `until`, of `time.monotonic`, is when there is no more time to wait."""

    transport: Engine
    path: str
    writer: str
    deadline: Deadline
    until: float

    def list(self, settled: Callable[[str, str], bool]) -> list[SegmentFile]:
        patience = min(time.monotonic() + _WRITING_SECONDS, self.until)
        while True:
            listed = self.transport.list(f"{self.path}/{self.writer}", timeout=self.deadline.left()) or []
            # Kubo shows a file that is just being written as an empty one.
            unsettled = [name for name, cid, size in listed if not size and not settled(name, cid)]
            if not unsettled or time.monotonic() >= patience:
                return [SegmentFile(self.writer, name, cid, sequence_of(name), size) for name, cid, size in listed]
            time.sleep(_WRITING_SECONDS / 10)

    def read(self, file: SegmentFile) -> bytes | None:
        path = f"{self.path}/{self.writer}/{file.name}"
        return self.transport.read(path, limit=MAX_BYTES, timeout=self.deadline.left())


@dataclass(frozen=True)
class RootShelf:
    """The directory with the CID `root`; `block_of` gives its blocks, which are verified."""

    writer: str
    root: str
    block_of: BlockOf

    def list(self, settled: Callable[[str, str], bool]) -> list[SegmentFile]:
        listed = directory(self.root, self.block_of)
        if listed is None:
            raise IntegrityError("a head names no directory", reason="not_a_directory")
        # How large each is shows when it is read, and is bounded there.
        return [SegmentFile(self.writer, name, cid, sequence_of(name), 1) for name, cid in listed]

    def read(self, file: SegmentFile) -> bytes | None:
        try:
            return read_file(file.cid, self.block_of, limit=MAX_BYTES)
        except TierError as error:
            if error.reason not in _NO_SEGMENT:
                raise
            # Its writer put it there: refused once, like an empty one, it is not asked for again.
            return b""


def path_of(table: Table, namespace: str) -> str:
    """Where the segments of a namespace are, in MFS."""
    return f"{ROOT}/{table.credential.namespace_id(namespace)}"


def sequence_of(name: str) -> int:
    """The number that a segment's name is; -1 for what is no segment's."""
    return int(name) if _SEGMENT.fullmatch(name) else -1
