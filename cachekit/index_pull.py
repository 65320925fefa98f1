"""Reading what a namespace's tree in MFS has and the local table has not."""

from __future__ import annotations

import re
import time
from typing import Final

from cachekit.errors import IntegrityError, TierUnavailable
from cachekit.index_rows import File
from cachekit.index_table import IndexTable
from cachekit.kubo import Transport
from cachekit.segments import MAX_BYTES

ROOT: Final = "/cachekit/v1"
_WRITING_SECONDS: Final = 0.1
"""Far longer than it takes Kubo to write a segment."""

_SEGMENT: Final = re.compile(r"\d{16}")
_WRITER: Final = re.compile(r"[0-9a-f]{32}")


class Pull:
    """Reading, until `end`, what a namespace's tree has that the table has not."""

    def __init__(self, table: IndexTable, transport: Transport, namespace: str, space: str, end: float) -> None:
        self._table = table
        self._transport = transport
        self._namespace = namespace
        self._space = space
        self._end = end
        # A read that begins in the last moment would only time out, and look like a failing daemon.
        self._last_start = end - min(0.05, (end - time.monotonic()) / 4)
        self._complete = True

    def all(self, root: str | None, known: dict[str, tuple[int, str]]) -> int:
        """Every writer's; `known` is what the table said before the tree was asked for `root`."""
        listed = self._transport.list(f"{ROOT}/{self._space}", timeout=left(self._end)) if root else None
        taken, present = 0, set[str]()
        for name, cid, _ in listed or []:
            present.add(name)
            if not _WRITER.fullmatch(name):
                self._table.refuse(self._space, File("", name, cid, 0), "unexpected_file")
                continue
            highest, seen = known.get(name, (0, ""))
            if seen != cid:
                taken += self._writer(name, cid, highest)
        self._missing(present, known)
        # Before the root: should it fail, the next pull comes here again.
        self._table.heed(self._namespace)
        if self._complete:
            self._table.set_root(self._space, root)
        return taken

    def own(self, writer: str) -> bool:
        """This machine's; False if time was too short for all of it."""
        highest = self._table.writers(self._space).get(writer, (0, ""))[0]
        self._writer(writer, "", highest)
        return self._complete

    def _missing(self, present: set[str], known: dict[str, tuple[int, str]]) -> None:
        for writer, (_, cid) in known.items():
            if cid and writer not in present:
                self._table.refused("rollback")
                self._table.set_writer(self._space, writer, "")

    def _writer(self, writer: str, cid: str, highest: int) -> int:
        seen, taken = self._table.files(self._space, writer), 0
        listed = self._listed(writer, seen)
        if listed and max(_sequence(name) for name, _, _ in listed) < highest:
            self._table.refused("rollback")
            self._table.set_writer(self._space, writer, cid)
            return 0
        # In the order of their sequences: wherever this is interrupted, all up to the highest seen is read.
        for name, file_cid, size in sorted(listed):
            if seen.get(name, ("", ""))[0] == file_cid:
                continue
            if time.monotonic() >= self._last_start:
                self._complete = False
                return taken
            taken += self._file(File(writer, name, file_cid, _sequence(name)), size, highest)
        self._table.keep_files(self._space, writer, [name for name, _, _ in listed])
        if cid:
            self._table.set_writer(self._space, writer, cid)
        return taken

    def _listed(self, writer: str, seen: dict[str, tuple[str, str]]) -> list[tuple[str, str, int]]:
        patience = min(time.monotonic() + _WRITING_SECONDS, self._last_start)
        while True:
            listed = self._transport.list(f"{ROOT}/{self._space}/{writer}", timeout=left(self._end)) or []
            # Kubo shows a file that is just being written as an empty one.
            unsettled = [name for name, cid, size in listed if not size and seen.get(name, ("", ""))[0] != cid]
            if not unsettled or time.monotonic() >= patience:
                return listed
            time.sleep(_WRITING_SECONDS / 10)

    def _file(self, file: File, size: int, highest: int) -> int:
        reason = "" if 0 < size <= MAX_BYTES else "oversized" if size else "empty_segment"
        if file.sequence < 0:
            reason = "unexpected_file"
        if reason:
            self._table.refuse(self._space, file, reason)
            return 0
        path = f"{ROOT}/{self._space}/{file.writer}/{file.name}"
        data = self._transport.read(path, limit=MAX_BYTES, timeout=left(self._end))
        if data is None:
            return 0
        try:
            segment = self._table.read_segment(data, self._namespace, file.writer, file.name)
            if file.sequence <= highest:
                raise IntegrityError(f"segment {file.name} came back", reason="rollback")
        except IntegrityError as error:
            self._table.refuse(self._space, file, error.reason)
            return 0
        return self._table.accept(self._namespace, file, segment.entries)


def _sequence(name: str) -> int:
    return int(name) if _SEGMENT.fullmatch(name) else -1


def left(end: float) -> float:
    """Seconds until `end`; TierUnavailable where there are none."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TierUnavailable("the time for this is over", reason="unfinished")
    return seconds
