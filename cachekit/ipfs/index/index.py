"""The shared index: segments in MFS below `/cachekit/v1/<namespace id>/<writer id>/`, merged into a local table.

A lookup asks the table; only `refresh` and `publish` ask the daemon.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.files.sqlite import locked
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.index.publishing import Push
from cachekit.ipfs.index.rows import SegmentFile
from cachekit.ipfs.index.segments import MAX_BYTES, Line
from cachekit.ipfs.index.shelves import ROSTERS, MfsShelf, Shelf, path_of
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.trust.credential import WriterKey
from cachekit.ipfs.trust.roster import MOST_BYTES as ROSTER_BYTES

MOST_SEGMENTS: Final = 128
"""Of one writer: the 64 that it may have, and as many again while it merges them."""
_AS_A_WHOLE: Final = ("rollback", "too_many_segments")
_WRITER: Final = re.compile(r"[0-9a-f]{32}")


class Index:
    """What takes the tree in MFS into `table`, and puts this machine's lines there."""

    def __init__(self, transport: Engine, table: Table) -> None:
        self._transport = transport
        self._table = table
        self._pulling = threading.Lock()
        self._roster = ""

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self._pulling = threading.Lock()

    def refresh(self, namespace: str, timeout: float, unfinished: Callable[[], None] = lambda: None) -> int:
        """Take in what is new; how many entries that were. One RPC where nothing is.

        Stops after `timeout` seconds with what it has, calls `unfinished`, and the next call goes on from there. Raises
        TierError when the daemon fails; what cannot be believed is reported and skipped.
        """
        # Before the directory is asked: what another process takes in meanwhile must not look like a rollback.
        known = self._table.writers(namespace)
        deadline = Deadline(timeout)
        pull = Pull(self._transport, self._table, namespace, deadline)
        root = self._transport.stat(pull.path, timeout=timeout)
        if root == self._table.root(namespace):
            return 0
        lock = self._pulling
        if not lock.acquire(timeout=deadline.rest):
            unfinished()
            return 0
        try:
            # Whoever held the lock has probably read it.
            taken = 0 if root == self._table.root(namespace) else pull.all(root, known)
        finally:
            lock.release()
        if not pull.complete:
            unfinished()
        return taken

    def refresh_roster(self, timeout: float) -> None:
        """Take in the owner's roster where another one stands in the daemon. Raises TierError."""
        path = f"{ROSTERS}/{self._table.credential.owner_id}"
        cid = self._transport.stat(path, timeout=timeout)
        if cid is None or cid == self._roster:
            return
        text = self._transport.read(path, limit=ROSTER_BYTES, timeout=timeout)
        try:
            self._table.members.take(text or b"")
        except IntegrityError as error:
            self._table.report(error.reason)
        self._roster = cid

    def publish_roster(self, text: bytes, timeout: float) -> None:
        """Have the daemon hold a roster, for all of its users. Raises TierError."""
        self._transport.write(f"{ROSTERS}/{self._table.credential.owner_id}", text, timeout=timeout)

    def take(self, namespace: str, shelf: Shelf, writer: str, deadline: Deadline) -> tuple[int, bool]:
        """Take in what a writer of another daemon has that is new; how many entries, and whether that was all.

        Raises IntegrityError for what is refused as a whole: `rollback`, `too_many_segments`, and as the shelf.
        """
        pull = Pull(self._transport, self._table, namespace, deadline)
        with self._pulling:
            highest = self._table.writers(namespace).get(writer, (0, ""))[0]
            taken = pull.writer(writer, "", highest, shelf)
        self._table.heed(namespace)
        return taken, pull.complete

    def tidy(self, namespace: str, writer: WriterKey, timeout: float) -> tuple[int, int]:
        """Take what is dead out of the segments of `writer`; how many lines and segments fewer they have. As `publish`."""
        deadline = Deadline(timeout)
        with locked(writer.path.with_suffix(".lock"), deadline.at):
            if not Pull(self._transport, self._table, namespace, deadline).own(writer.id):
                raise TierUnavailable("there was no time to read our own segments", reason="unfinished")
            return Push(self._transport, self._table, namespace, writer, deadline).compact(dead=True)

    def publish(
        self, namespace: str, lines: Sequence[Line], writer: WriterKey, timeout: float
    ) -> list[tuple[str, bytes]]:
        """Make `lines` visible to everybody, as segments of `writer`; merges its segments when they are many.

        Gives the new segments, with their CIDs. Holds a lock of this machine's writer key. Raises TierError; a segment
        that was written stays.
        """
        deadline = Deadline(timeout)
        with locked(writer.path.with_suffix(".lock"), deadline.at):
            if not Pull(self._transport, self._table, namespace, deadline).own(writer.id):
                raise TierUnavailable("there was no time to read our own segments", reason="unfinished")
            push = Push(self._transport, self._table, namespace, writer, deadline)
            written = push.append(lines)
            push.compact()
        # Here, in the background, or else the next lookup has to find out that only our own segment was new. Should it
        # fail, that is what happens.
        with contextlib.suppress(TierError):
            self.refresh(namespace, deadline.left())
        return written


@dataclass
class Pull:
    """Reading, until a deadline, what a namespace's tree has that the table has not."""

    transport: Engine
    table: Table
    namespace: str
    deadline: Deadline
    complete: bool = True

    def __post_init__(self) -> None:
        self.path = path_of(self.table, self.namespace)
        # A read that begins in the last moment would only time out, and look like a failing daemon.
        self.last_start = self.deadline.at - min(0.05, self.deadline.rest / 4)

    def all(self, root: str | None, known: dict[str, tuple[int, str]]) -> int:
        """Every writer's; `known` is what the table said before the tree was asked for `root`."""
        listed = self.transport.list(self.path, timeout=self.deadline.left()) if root else None
        taken, present = 0, set[str]()
        for name, cid, _ in listed or []:
            present.add(name)
            if not _WRITER.fullmatch(name):
                self.table.refuse(self.namespace, SegmentFile("", name, cid, 0, 0), "unexpected_file")
                continue
            highest, seen = known.get(name, (0, ""))
            if seen != cid:
                taken += self._from_mfs(name, cid, highest)
        for writer, (_, cid) in known.items():
            if cid and writer not in present:
                self._refuse(writer, "", "rollback")
        # Before the root: should it fail, the next pull comes here again.
        self.table.heed(self.namespace)
        if self.complete:
            self.table.set_root(self.namespace, root)
        return taken

    def own(self, writer: str) -> bool:
        """This machine's; False if time was too short for all of it."""
        highest = self.table.writers(self.namespace).get(writer, (0, ""))[0]
        # However many they are: only who has read them can merge them.
        self._from_mfs(writer, "", highest, most=math.inf)
        return self.complete

    def _from_mfs(self, writer: str, cid: str, highest: int, most: float = MOST_SEGMENTS) -> int:
        try:
            return self.writer(writer, cid, highest, self._mfs(writer), most)
        except IntegrityError as error:
            if error.reason not in _AS_A_WHOLE:
                raise
            self._refuse(writer, cid, error.reason)
            return 0

    def _mfs(self, writer: str) -> MfsShelf:
        return MfsShelf(self.transport, self.path, writer, self.deadline, self.last_start)

    def writer(self, writer: str, cid: str, highest: int, shelf: Shelf, most: float = MOST_SEGMENTS) -> int:
        """What `shelf` has and the table has not; how many entries that were. `cid` is noted where that is all.

        Raises IntegrityError `rollback`, `too_many_segments`.
        """
        seen, taken = self.table.files(self.namespace, writer), 0
        listed = shelf.list(lambda name, file_cid: seen.get(name, ("", ""))[0] == file_cid)
        if highest and listed and max(file.sequence for file in listed) < highest:
            raise IntegrityError("a writer's newest segments are gone", reason="rollback")
        if len(listed) > most:
            raise IntegrityError("a writer has more segments than anybody needs", reason="too_many_segments")
        # In the order of their sequences: wherever this is interrupted, all up to the highest seen is read.
        for file in sorted(listed, key=lambda file: file.name):
            if seen.get(file.name, ("", ""))[0] == file.cid:
                continue
            if time.monotonic() >= self.last_start:
                self.complete = False
                return taken
            taken += self._file(file, highest, shelf)
        self.table.keep_files(self.namespace, writer, [file.name for file in listed])
        if cid:
            self.table.set_writer(self.namespace, writer, cid)
        return taken

    def _refuse(self, writer: str, cid: str, reason: str) -> None:
        self.table.report(reason)
        self.table.set_writer(self.namespace, writer, cid)

    def _file(self, file: SegmentFile, highest: int, shelf: Shelf) -> int:
        reason = "" if 0 < file.size <= MAX_BYTES else "oversized" if file.size else "empty_segment"
        if file.sequence < 0:
            reason = "unexpected_file"
        if reason:
            self.table.refuse(self.namespace, file, reason)
            return 0
        data = shelf.read(file)
        if data is None:
            return 0
        try:
            segment = self.table.read_segment(data, self.namespace, file.writer, file.name)
            if file.sequence <= highest:
                raise IntegrityError(f"segment {file.name} came back", reason="rollback")
        except IntegrityError as error:
            self.table.refuse(self.namespace, file, error.reason)
            return 0
        return self.table.accept(self.namespace, file, segment.lines)
