"""The shared index: segments in MFS below `/cachekit/v1/<namespace id>/<writer id>/`, merged into a local table.

A lookup asks the table; only `refresh` and `publish` ask the daemon.

Reading what a namespace's tree in MFS has and the local table has not.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.files.sqlite import locked
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.credential import Credential, WriterKey
from cachekit.ipfs.index.rows import SKEW, File, IndexMark, Pin, alive, cid_of
from cachekit.ipfs.index.segments import ENTRY, MAX_BYTES, MAX_ENTRIES, Line, encode
from cachekit.ipfs.index.table import IndexTable, tag_of
from cachekit.ipfs.kubo.transport import KuboTransport

ROOT: Final = "/cachekit/v1"
_WRITING_SECONDS: Final = 0.1
"""Far longer than it takes Kubo to write a segment."""

_SEGMENT: Final = re.compile(r"\d{16}")
_WRITER: Final = re.compile(r"[0-9a-f]{32}")


class Pull:
    """Reading, until a deadline, what a namespace's tree has that the table has not."""

    def __init__(
        self, table: IndexTable, transport: KuboTransport, namespace: str, space: str, deadline: Deadline
    ) -> None:
        self._table = table
        self._transport = transport
        self._namespace = namespace
        self._space = space
        self._deadline = deadline
        # A read that begins in the last moment would only time out, and look like a failing daemon.
        self._last_start = deadline.at - min(0.05, deadline.rest / 4)
        self._complete = True

    def all(self, root: str | None, known: dict[str, tuple[int, str]]) -> int:
        """Every writer's; `known` is what the table said before the tree was asked for `root`."""
        listed = self._transport.list(f"{ROOT}/{self._space}", timeout=self._deadline.left()) if root else None
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
            listed = self._transport.list(f"{ROOT}/{self._space}/{writer}", timeout=self._deadline.left()) or []
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
        data = self._transport.read(path, limit=MAX_BYTES, timeout=self._deadline.left())
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


__all__ = ["ROOT", "Index", "IndexMark", "Pin", "alive", "cid_of", "tag_of"]

COMPACT_AT: Final = 48
"""Segments of one writer from which on it merges them: well below the 64 that nobody may exceed."""

_LARGE_BYTES: Final = MAX_BYTES // 2
_MOST_LARGE: Final = 32


class Index(IndexTable):
    """The table at `path` (a SQLite file in the cache directory), and its way to and from the daemon.

    `report` is called with a short word for each segment or file that was refused: the reasons of `segments.decode`,
    `misplaced`, `rollback`, `unexpected_file`, `future`, `corrupt_index`.
    """

    def __init__(
        self,
        path: Path,
        credential: Credential,
        report: Callable[[str], None] = lambda _reason: None,
        heed: Callable[[str, Sequence[IndexMark]], None] = lambda _namespace, _marks: None,
    ) -> None:
        super().__init__(path, credential, report, heed)
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._pulling = threading.Lock()

    def refresh(self, transport: KuboTransport, namespace: str, timeout: float) -> int:
        """Take in what is new; how many entries that were. One RPC where nothing is.

        Stops after `timeout` seconds with what it has, and the next call goes on from there. Raises TierError when the
        daemon fails; what cannot be believed is reported and skipped.
        """
        space = self._credential.namespace_id(namespace)
        # Before the directory is asked: what another process takes in meanwhile must not look like a rollback.
        known = self.writers(space)
        deadline = Deadline(timeout)
        root = transport.stat(f"{ROOT}/{space}", timeout=timeout)
        if root == self.root(space):
            return 0
        if self._pid != os.getpid():
            self._renew()
        lock = self._pulling
        if not lock.acquire(timeout=deadline.rest):
            return 0
        try:
            # Whoever held the lock has probably read it.
            return 0 if root == self.root(space) else Pull(self, transport, namespace, space, deadline).all(root, known)
        finally:
            lock.release()

    def publish(
        self, transport: KuboTransport, namespace: str, entries: Sequence[Line], writer: WriterKey, timeout: float
    ) -> None:
        """Make `entries` visible to everybody, as segments of `writer`; merges its segments when they are many.

        Holds a lock of this machine's writer key. Raises TierError; a segment that was written stays.
        """
        deadline = Deadline(timeout)
        space = self._credential.namespace_id(namespace)
        with locked(writer.path.with_suffix(".lock"), deadline.at):
            pull = Pull(self, transport, namespace, space, deadline)
            if not pull.own(writer.id):
                raise TierUnavailable("there was no time to read our own segments", reason="unfinished")
            self._append(transport, namespace, entries, writer, deadline)
            self._compact(transport, namespace, writer, deadline)
        # Here, in the background, or else the next lookup has to find out that only our own segment was new. Should it
        # fail, that is what happens.
        with contextlib.suppress(TierError):
            self.refresh(transport, namespace, deadline.left())

    def _append(
        self, transport: KuboTransport, namespace: str, entries: Sequence[Line], writer: WriterKey, deadline: Deadline
    ) -> None:
        space = self._credential.namespace_id(namespace)
        sequence = self.writers(space).get(writer.id, (0, ""))[0]
        taken = self.files(space, writer.id)
        for at in range(0, len(entries), MAX_ENTRIES):
            part = entries[at : at + MAX_ENTRIES]
            sequence = _free_after(sequence, taken)
            name = f"{sequence:016d}"
            path = f"{ROOT}/{space}/{writer.id}/{name}"
            data = encode(part, credential=self._credential, namespace=namespace, writer=writer, sequence=sequence)
            transport.write(path, data, timeout=deadline.left())
            cid = transport.stat(path, timeout=deadline.left()) or ""
            self.accept(namespace, File(writer.id, name, cid, sequence), part)

    def _compact(self, transport: KuboTransport, namespace: str, writer: WriterKey, deadline: Deadline) -> None:
        space = self._credential.namespace_id(namespace)
        path = f"{ROOT}/{space}/{writer.id}"
        good = {name for name, (_, reason) in self.files(space, writer.id).items() if not reason}
        sizes = {name: size for name, _, size in transport.list(path, timeout=deadline.left()) or [] if name in good}
        if len(sizes) < COMPACT_AT:
            return
        small = [name for name, size in sizes.items() if size < _LARGE_BYTES]
        # Large ones are left alone while they are few: rewriting all of them each time would cost their whole size.
        victims = small if len(sizes) - len(small) < _MOST_LARGE else list(sizes)
        merged = self._merged(transport, namespace, writer.id, victims, deadline)
        self._append(transport, namespace, merged, writer, deadline)
        for name in victims:
            transport.remove(f"{path}/{name}", timeout=deadline.left())

    def _merged(
        self, transport: KuboTransport, namespace: str, writer: str, names: Sequence[str], deadline: Deadline
    ) -> list[Line]:
        space, newest = self._credential.namespace_id(namespace), dict[tuple[int, bytes], Line]()
        for name in names:
            data = transport.read(f"{ROOT}/{space}/{writer}/{name}", limit=MAX_BYTES, timeout=deadline.left())
            entries = self.read_segment(data, namespace, writer, name).entries if data else []
            for entry in entries:
                known = newest.get((entry.kind, entry.key))
                if known is None or known.created < entry.created:
                    newest[entry.kind, entry.key] = entry
        now = time.time_ns()
        living = [e for e in newest.values() if e.kind != ENTRY or self._worth_keeping(namespace, e, now)]
        # Marks first, then the newest: should there be more than fits, the oldest answers go.
        living.sort(key=lambda entry: (entry.kind == ENTRY, -entry.created))
        return living[: _MOST_LARGE * MAX_ENTRIES]

    def _worth_keeping(self, namespace: str, entry: Line, now: int) -> bool:
        return alive(entry, now) and entry.created <= now + SKEW and not self.covers(namespace, entry)


def _free_after(sequence: int, taken: dict[str, tuple[str, str]]) -> int:
    sequence += 1
    # A forged file may stand there already.
    while f"{sequence:016d}" in taken:
        sequence += 1
    return sequence
