"""Writing the segments of this machine's writer, and merging them before they are too many."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.index.rows import SegmentFile, alive
from cachekit.ipfs.index.segments import ENTRY, MAX_BYTES, MAX_LINES, PIN_END, Line, encode
from cachekit.ipfs.index.shelves import path_of
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.trust.credential import WriterKey
from cachekit.model import SKEW

COMPACT_AT: Final = 48
"""Segments of one writer from which on it merges them: well below the 64 that nobody may exceed."""

_LARGE_BYTES: Final = MAX_BYTES // 2
_MOST_LARGE: Final = 32


@dataclass(frozen=True)
class Push:
    """Writing, until a deadline, the segments of one writer in a namespace."""

    transport: Engine
    table: Table
    namespace: str
    writer: WriterKey
    deadline: Deadline

    @property
    def path(self) -> str:
        """The writer's directory."""
        return f"{path_of(self.table, self.namespace)}/{self.writer.id}"

    def append(self, lines: Sequence[Line]) -> list[tuple[str, bytes]]:
        """New segments with `lines`, above all that were ever seen; each with its CID."""
        written = []
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
            self.table.accept(self.namespace, SegmentFile(self.writer.id, name, cid, sequence, len(data)), part)
            written.append((cid, data))
        return written

    def compact(self, *, dead: bool = False) -> tuple[int, int]:
        """Where the writer's segments are many, or with `dead` where there is anything dead in them, merge them into few.

        How many lines and segments fewer there are.
        """
        files = self.table.files(self.namespace, self.writer.id)
        listed = self.transport.list(self.path, timeout=self.deadline.left()) or []
        sizes = {name: size for name, _, size in listed if name in files and files[name][1] in ("", "future")}
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


def _free_after(sequence: int, taken: dict[str, tuple[str, str]]) -> int:
    sequence += 1
    # A forged file may stand there already.
    while f"{sequence:016d}" in taken:
        sequence += 1
    return sequence
