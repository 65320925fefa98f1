"""The shared index: segments in MFS below `/cachekit/v1/<namespace id>/<writer id>/`, merged into a local table.

A lookup asks the table; only `refresh` and `publish` ask the daemon.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.files.sqlite import locked
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.index.rows import SKEW, SegmentFile, alive
from cachekit.ipfs.index.segments import ENTRY, MAX_BYTES, MAX_LINES, PIN_END, Line, encode
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.trust.credential import WriterKey

ROOT: Final = "/cachekit/v1"
COMPACT_AT: Final = 48
"""Segments of one writer from which on it merges them: well below the 64 that nobody may exceed."""

_LARGE_BYTES: Final = MAX_BYTES // 2
_MOST_LARGE: Final = 32
_WRITING_SECONDS: Final = 0.1
"""Far longer than it takes Kubo to write a segment."""
_SEGMENT: Final = re.compile(r"\d{16}")
_WRITER: Final = re.compile(r"[0-9a-f]{32}")


class Index:
    """What takes the tree in MFS into `table`, and puts this machine's lines there."""

    def __init__(self, transport: KuboTransport, table: Table) -> None:
        self._transport = transport
        self._table = table
        self._pulling = threading.Lock()

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

    def tidy(self, namespace: str, writer: WriterKey, timeout: float) -> tuple[int, int]:
        """Take what is dead out of the segments of `writer`; how many lines and segments fewer they have. As `publish`."""
        deadline = Deadline(timeout)
        with locked(writer.path.with_suffix(".lock"), deadline.at):
            if not Pull(self._transport, self._table, namespace, deadline).own(writer.id):
                raise TierUnavailable("there was no time to read our own segments", reason="unfinished")
            return Push(self._transport, self._table, namespace, writer, deadline).compact(dead=True)

    def publish(self, namespace: str, lines: Sequence[Line], writer: WriterKey, timeout: float) -> None:
        """Make `lines` visible to everybody, as segments of `writer`; merges its segments when they are many.

        Holds a lock of this machine's writer key. Raises TierError; a segment that was written stays.
        """
        deadline = Deadline(timeout)
        with locked(writer.path.with_suffix(".lock"), deadline.at):
            if not Pull(self._transport, self._table, namespace, deadline).own(writer.id):
                raise TierUnavailable("there was no time to read our own segments", reason="unfinished")
            push = Push(self._transport, self._table, namespace, writer, deadline)
            push.append(lines)
            push.compact()
        # Here, in the background, or else the next lookup has to find out that only our own segment was new. Should it
        # fail, that is what happens.
        with contextlib.suppress(TierError):
            self.refresh(namespace, deadline.left())


@dataclass
class Pull:
    """Reading, until a deadline, what a namespace's tree has that the table has not."""

    transport: KuboTransport
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
                self.table.refuse(self.namespace, SegmentFile("", name, cid, 0), "unexpected_file")
                continue
            highest, seen = known.get(name, (0, ""))
            if seen != cid:
                taken += self._writer(name, cid, highest)
        for writer, (_, cid) in known.items():
            if cid and writer not in present:
                self._rolled_back(writer, "")
        # Before the root: should it fail, the next pull comes here again.
        self.table.heed(self.namespace)
        if self.complete:
            self.table.set_root(self.namespace, root)
        return taken

    def own(self, writer: str) -> bool:
        """This machine's; False if time was too short for all of it."""
        highest = self.table.writers(self.namespace).get(writer, (0, ""))[0]
        self._writer(writer, "", highest)
        return self.complete

    def _writer(self, writer: str, cid: str, highest: int) -> int:
        seen, taken = self.table.files(self.namespace, writer), 0
        listed = self._listed(writer, seen)
        if listed and max(_sequence(name) for name, _, _ in listed) < highest:
            self._rolled_back(writer, cid)
            return 0
        # In the order of their sequences: wherever this is interrupted, all up to the highest seen is read.
        for name, file_cid, size in sorted(listed):
            if seen.get(name, ("", ""))[0] == file_cid:
                continue
            if time.monotonic() >= self.last_start:
                self.complete = False
                return taken
            taken += self._file(SegmentFile(writer, name, file_cid, _sequence(name)), size, highest)
        self.table.keep_files(self.namespace, writer, [name for name, _, _ in listed])
        if cid:
            self.table.set_writer(self.namespace, writer, cid)
        return taken

    def _rolled_back(self, writer: str, cid: str) -> None:
        self.table.report("rollback")
        self.table.set_writer(self.namespace, writer, cid)

    def _listed(self, writer: str, seen: dict[str, tuple[str, str]]) -> list[tuple[str, str, int]]:
        patience = min(time.monotonic() + _WRITING_SECONDS, self.last_start)
        while True:
            listed = self.transport.list(f"{self.path}/{writer}", timeout=self.deadline.left()) or []
            # Kubo shows a file that is just being written as an empty one.
            unsettled = [name for name, cid, size in listed if not size and seen.get(name, ("", ""))[0] != cid]
            if not unsettled or time.monotonic() >= patience:
                return listed
            time.sleep(_WRITING_SECONDS / 10)

    def _file(self, file: SegmentFile, size: int, highest: int) -> int:
        reason = "" if 0 < size <= MAX_BYTES else "oversized" if size else "empty_segment"
        if file.sequence < 0:
            reason = "unexpected_file"
        if reason:
            self.table.refuse(self.namespace, file, reason)
            return 0
        path = f"{self.path}/{file.writer}/{file.name}"
        data = self.transport.read(path, limit=MAX_BYTES, timeout=self.deadline.left())
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


@dataclass(frozen=True)
class Push:
    """Writing, until a deadline, the segments of one writer in a namespace."""

    transport: KuboTransport
    table: Table
    namespace: str
    writer: WriterKey
    deadline: Deadline

    @property
    def path(self) -> str:
        """The writer's directory."""
        return f"{path_of(self.table, self.namespace)}/{self.writer.id}"

    def append(self, lines: Sequence[Line]) -> None:
        """New segments with `lines`, above all that were ever seen."""
        sequence = self.table.writers(self.namespace).get(self.writer.id, (0, ""))[0]
        taken = self.table.files(self.namespace, self.writer.id)
        for at in range(0, len(lines), MAX_LINES):
            part = lines[at : at + MAX_LINES]
            sequence = _free_after(sequence, taken)
            name = f"{sequence:016d}"
            data = encode(
                part,
                credential=self.table.credential,
                namespace=self.namespace,
                writer=self.writer,
                sequence=sequence,
            )
            self.transport.write(f"{self.path}/{name}", data, timeout=self.deadline.left())
            cid = self.transport.stat(f"{self.path}/{name}", timeout=self.deadline.left()) or ""
            self.table.accept(self.namespace, SegmentFile(self.writer.id, name, cid, sequence), part)

    def compact(self, *, dead: bool = False) -> tuple[int, int]:
        """Where the writer's segments are many, or with `dead` where there is anything dead in them, merge them into few.

        How many lines and segments fewer there are.
        """
        files = self.table.files(self.namespace, self.writer.id)
        listed = self.transport.list(self.path, timeout=self.deadline.left()) or []
        sizes = {name: size for name, _, size in listed if name in files and not files[name][1]}
        if len(sizes) < COMPACT_AT and not dead:
            return 0, 0
        small = [name for name, size in sizes.items() if size < _LARGE_BYTES]
        # Large ones are left alone while they are few: rewriting all of them each time would cost their whole size.
        victims = small if len(sizes) - len(small) < _MOST_LARGE and not dead else list(sizes)
        read, kept = self._merged(victims)
        if dead and len(kept) == read:
            return 0, 0
        self.append(kept)
        for name in victims:
            self.transport.remove(f"{self.path}/{name}", timeout=self.deadline.left())
        return read - len(kept), len(victims) - -(-len(kept) // MAX_LINES)

    def _merged(self, names: Sequence[str]) -> tuple[int, list[Line]]:
        """How many lines there are in these segments, and those that are worth keeping."""
        newest, read = dict[tuple[int, bytes], Line](), 0
        for name in names:
            path = f"{self.path}/{name}"
            data = self.transport.read(path, limit=MAX_BYTES, timeout=self.deadline.left())
            lines = self.table.read_segment(data, self.namespace, self.writer.id, name).lines if data else []
            read += len(lines)
            for line in lines:
                known = newest.get((line.kind, line.key))
                if known is None or known.created < line.created:
                    newest[line.kind, line.key] = line
        now = time.time_ns()
        kept = [line for line in newest.values() if self._worth_keeping(line, newest, now)]
        # Marks first, then the newest: should there be more than fits, the oldest answers go.
        kept.sort(key=lambda line: (line.kind == ENTRY, -line.created))
        # Never nothing: a writer who forgot how far it was must find that here, or nobody would believe it any more.
        return read, kept[: _MOST_LARGE * MAX_LINES] or list(newest.values())[-1:]

    def _worth_keeping(self, line: Line, newest: Mapping[tuple[int, bytes], Line], now: int) -> bool:
        if line.kind not in (ENTRY, PIN_END):
            return True
        # A pin's end goes with its entry.
        entry = newest.get((ENTRY, line.key), line)
        if entry.created != line.created or entry.kind != ENTRY:
            return False
        return alive(entry, now) and entry.created <= now + SKEW and not self.table.covers(self.namespace, entry)


def path_of(table: Table, namespace: str) -> str:
    """Where the segments of a namespace are, in MFS."""
    return f"{ROOT}/{table.credential.namespace_id(namespace)}"


def _sequence(name: str) -> int:
    return int(name) if _SEGMENT.fullmatch(name) else -1


def _free_after(sequence: int, taken: dict[str, tuple[str, str]]) -> int:
    sequence += 1
    # A forged file may stand there already.
    while f"{sequence:016d}" in taken:
        sequence += 1
    return sequence
