"""What the processes of a machine tell each other: invalidations at once, statistics now and then.

The marks (model.Mark) and the totals stand in one SQLite file of the cache directory; beside it a mapped file holds one
counter, the generation. Whoever invalidates moves the generation on, inside the transaction that writes the mark. A
reader compares one integer (50 ns) and reads the marks again only when it moved.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cachekit.files.sqlite import all_or_nothing, write_ahead
from cachekit.model import EVERYWHERE, Key, Mark, Record

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS marks (
    namespace TEXT, kind TEXT, value TEXT, at INTEGER, PRIMARY KEY (namespace, kind, value)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
    function TEXT, counter TEXT, amount REAL, PRIMARY KEY (function, counter)) WITHOUT ROWID;
"""
_VEIL: Final = "hmac:"


def veiled(code: bytes) -> str:
    """A key or a tag as marks of other machines name it, by a code that only holders of the credential can compute."""
    return _VEIL + code.hex()


class Ledger:
    """The shared state of one cache directory. Everything may raise sqlite3.Error or OSError except `generation`.

    `veil`, where set, gives the veiled (kind, name) pairs of a record; without it veiled marks cover nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger.db"
        self._counter = directory / "generation"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._marks: dict[tuple[str, str, str], int] = {}
        self._known = -1
        self._has_veiled = False
        self.veil: Callable[[Key, Record], Sequence[tuple[str, str]]] | None = None
        self.generation: Sequence[int] = (0,)
        self._cells: memoryview | None = None

    def open(self) -> None:
        """Maps the counter; `generation[0]` is the machine's from here on."""
        descriptor = os.open(self._counter, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < 8:
                os.ftruncate(descriptor, 8)
            self._map = mmap.mmap(descriptor, 8)
        finally:
            os.close(descriptor)
        self._cells = memoryview(self._map).cast("Q")
        self.generation = self._cells

    def mark(self, marks: Sequence[Mark]) -> None:
        """Records invalidations; every process of the machine heeds them from now on."""
        with self._write() as connection:
            connection.executemany(
                "INSERT INTO marks VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                [(mark.namespace, mark.kind, mark.value, mark.at) for mark in marks],
            )

    def bump(self) -> None:
        """Sends every process of the machine back to disk for its next read."""
        with self._write():
            pass

    def covers(self, key: Key, record: Record) -> bool:
        """Whether an invalidation covers the record; without a directory there are none."""
        if self._cells is None:
            return False
        if self._known != self.generation[0]:
            self._reload()
        marks = self._marks
        if not marks:
            return False
        subjects = [(key.namespace, "namespace", ""), (key.namespace, "key", key.digest.hex())]
        subjects += [(space, "tag", tag) for tag in record.tags for space in (key.namespace, EVERYWHERE)]
        if self._has_veiled and self.veil is not None:
            veils = self.veil(key, record)
            subjects += [(space, kind, name) for kind, name in veils for space in (key.namespace, EVERYWHERE)]
        return any(marks.get(subject, 0) >= record.created for subject in subjects)

    def add_totals(self, amounts: Mapping[str, Mapping[str, float]]) -> None:
        """Adds counters per function to the machine's totals; new names begin at zero."""
        rows = [(name, counter, amount) for name, counters in amounts.items() for counter, amount in counters.items()]
        connection = self._connection()
        with all_or_nothing(connection):
            connection.executemany(
                "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount", rows
            )

    def totals(self) -> dict[str, dict[str, float]]:
        """The machine's totals: function → counter → amount."""
        found: dict[str, dict[str, float]] = {}
        for name, counter, amount in self._connection().execute("SELECT function, counter, amount FROM totals"):
            found.setdefault(name, {})[counter] = amount
        return found

    def close(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            connection.close()
            self._local.connection = None

    def _reload(self) -> None:
        with self._lock:
            seen = self.generation[0]
            rows = self._connection().execute("SELECT namespace, kind, value, at FROM marks").fetchall()
            self._has_veiled = any(value.startswith(_VEIL) for _, _, value, _ in rows)
            self._marks = {(namespace, kind, value): at for namespace, kind, value, at in rows}
            self._known = seen

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        with all_or_nothing(connection):
            generation = connection.execute("PRAGMA user_version").fetchone()[0] + 1
            connection.execute(f"PRAGMA user_version = {generation}")
            yield connection
        # After the commit, so that whoever sees the new generation finds the mark; and a number that only this
        # transaction has, so that two writers who swap here still leave a value that no reader has acted on.
        assert self._cells is not None
        self._cells[0] = generation

    def _connection(self) -> sqlite3.Connection:
        local = self._local
        if getattr(local, "connection", None) is None or local.pid != os.getpid():
            connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
            write_ahead(connection)
            connection.executescript(_SCHEMA)
            local.connection, local.pid = connection, os.getpid()
        found: sqlite3.Connection = local.connection
        return found

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self._lock = threading.Lock()
