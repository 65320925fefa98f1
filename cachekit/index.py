"""The shared index: segments in MFS below `/cachekit/v1/<namespace id>/<writer id>/`, merged into a local table.

A lookup asks the table; only `refresh` and `publish` ask the daemon.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cachekit.credentials import Credential
from cachekit.errors import TierError, TierUnavailable
from cachekit.files.sqlite import locked
from cachekit.index_pull import ROOT, Pull, left
from cachekit.index_rows import SKEW, File, IndexMark, Pin, alive, cid_of
from cachekit.index_table import IndexTable, nobody, tag_of
from cachekit.kubo import Transport
from cachekit.segments import ENTRY, MAX_BYTES, MAX_ENTRIES, Entry, encode
from cachekit.writers import WriterKey

__all__ = ["OWN_REASONS", "ROOT", "Index", "IndexMark", "Pin", "alive", "cid_of", "tag_of"]

OWN_REASONS: Final = ("locked", "unfinished")
"""Reasons of a TierUnavailable that is not the daemon's doing."""
COMPACT_AT: Final = 48
"""Segments of one writer from which on it merges them: well below the 64 that nobody may exceed."""

_LARGE_BYTES: Final = MAX_BYTES // 2
_MOST_LARGE: Final = 32


def _silent(_reason: str) -> None:
    """Tell nobody."""


class Index(IndexTable):
    """The table at `path` (a SQLite file in the cache directory), and its way to and from the daemon.

    `report` is called with a short word for each segment or file that was refused: the reasons of `segments.decode`,
    `misplaced`, `rollback`, `unexpected_file`, `future`, `corrupt_index`.
    """

    def __init__(
        self,
        path: Path,
        credential: Credential,
        report: Callable[[str], None] = _silent,
        heed: Callable[[str, Sequence[IndexMark]], None] = nobody,
    ) -> None:
        super().__init__(path, credential, report, heed)
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._pulling = threading.Lock()

    def refresh(self, transport: Transport, namespace: str, timeout: float) -> int:
        """Take in what is new; how many entries that were. One RPC where nothing is.

        Stops after `timeout` seconds with what it has, and the next call goes on from there. Raises TierError when the
        daemon fails; what cannot be believed is reported and skipped.
        """
        space = self._credential.namespace_id(namespace)
        # Before the directory is asked: what another process takes in meanwhile must not look like a rollback.
        known = self.writers(space)
        end = time.monotonic() + timeout
        root = transport.stat(f"{ROOT}/{space}", timeout=timeout)
        if root == self.root(space):
            return 0
        if self._pid != os.getpid():
            self._renew()
        lock = self._pulling
        if not lock.acquire(timeout=max(0.0, end - time.monotonic())):
            return 0
        try:
            # Whoever held the lock has probably read it.
            return 0 if root == self.root(space) else Pull(self, transport, namespace, space, end).all(root, known)
        finally:
            lock.release()

    def publish(
        self, transport: Transport, namespace: str, entries: Sequence[Entry], writer: WriterKey, timeout: float
    ) -> None:
        """Make `entries` visible to everybody, as segments of `writer`; merges its segments when they are many.

        Holds a lock of this machine's writer key. Raises TierError; a segment that was written stays.
        """
        end = time.monotonic() + timeout
        space = self._credential.namespace_id(namespace)
        with locked(writer.path.with_suffix(".lock"), end):
            pull = Pull(self, transport, namespace, space, end)
            if not pull.own(writer.id):
                raise TierUnavailable("there was no time to read our own segments", reason="unfinished")
            self._append(transport, namespace, entries, writer, end)
            self._compact(transport, namespace, writer, end)
        # Here, in the background, or else the next lookup has to find out that only our own segment was new. Should it
        # fail, that is what happens.
        with contextlib.suppress(TierError):
            self.refresh(transport, namespace, left(end))

    def _append(
        self, transport: Transport, namespace: str, entries: Sequence[Entry], writer: WriterKey, end: float
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
            transport.write(path, data, timeout=left(end))
            cid = transport.stat(path, timeout=left(end)) or ""
            self.accept(namespace, File(writer.id, name, cid, sequence), part)

    def _compact(self, transport: Transport, namespace: str, writer: WriterKey, end: float) -> None:
        space = self._credential.namespace_id(namespace)
        path = f"{ROOT}/{space}/{writer.id}"
        good = {name for name, (_, reason) in self.files(space, writer.id).items() if not reason}
        sizes = {name: size for name, _, size in transport.list(path, timeout=left(end)) or [] if name in good}
        if len(sizes) < COMPACT_AT:
            return
        small = [name for name, size in sizes.items() if size < _LARGE_BYTES]
        # Large ones are left alone while they are few: rewriting all of them each time would cost their whole size.
        victims = small if len(sizes) - len(small) < _MOST_LARGE else list(sizes)
        merged = self._merged(transport, namespace, writer.id, victims, end)
        self._append(transport, namespace, merged, writer, end)
        for name in victims:
            transport.remove(f"{path}/{name}", timeout=left(end))

    def _merged(
        self, transport: Transport, namespace: str, writer: str, names: Sequence[str], end: float
    ) -> list[Entry]:
        space, newest = self._credential.namespace_id(namespace), dict[tuple[int, bytes], Entry]()
        for name in names:
            data = transport.read(f"{ROOT}/{space}/{writer}/{name}", limit=MAX_BYTES, timeout=left(end))
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

    def _worth_keeping(self, namespace: str, entry: Entry, now: int) -> bool:
        return alive(entry, now) and entry.created <= now + SKEW and not self.covers(namespace, entry)


def _free_after(sequence: int, taken: dict[str, tuple[str, str]]) -> int:
    sequence += 1
    # A forged file may stand there already.
    while f"{sequence:016d}" in taken:
        sequence += 1
    return sequence
