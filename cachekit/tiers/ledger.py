"""What the processes of a machine tell each other: invalidations at once, statistics now and then.

The marks (model.Mark) and the totals stand in one SQLite file of the cache directory; beside it a mapped file holds two
numbers. Whoever invalidates moves the first on, the generation, inside the transaction that writes the mark. A reader
compares one integer (50 ns) and reads the marks again only when it moved. The second is another one after each store:
where it stayed, who looked before need not look again.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cachekit.errors import TierError
from cachekit.files import forks
from cachekit.files.sqlite import Database
from cachekit.model import EVERYWHERE, SKEW, Key, Mark, Record

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS marks (
    namespace TEXT, kind TEXT, value TEXT, at INTEGER, PRIMARY KEY (namespace, kind, value)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
    function TEXT, counter TEXT, amount REAL, PRIMARY KEY (function, counter)) WITHOUT ROWID;
"""
_MARKS: Final = "SELECT namespace, kind, value, at FROM marks"
_MARK: Final = (str, str, str, int)
# SQLite does not see a bit that changed in its file; what then has another type is no mark and no total.
_ALTERED: Final = """DELETE FROM marks WHERE typeof(namespace) <> 'text' OR typeof(kind) <> 'text'
    OR typeof(value) <> 'text' OR typeof(at) <> 'integer'"""
_TOTALS: Final = """SELECT function, counter, amount FROM totals
    WHERE typeof(function) = 'text' AND typeof(counter) = 'text' AND typeof(amount) = 'real'"""
_MARKING: Final = 10.0
"""Seconds that an invalidation waits for other writers: nothing stands in for it."""
_BOUND: Final = 0.25
"""Seconds that everything else waits."""
_MAPPED: Final = 16
_VEIL: Final = "hmac:"


def veiled(code: bytes) -> str:
    """A key or a tag as marks of other machines name it, by a code that only holders of the credential can compute."""
    return _VEIL + code.hex()


def unveiled(name: str) -> bytes | None:
    """The code again; None for what `veiled` did not give."""
    try:
        code = bytes.fromhex(name.removeprefix(_VEIL)) if name.startswith(_VEIL) else b""
    except ValueError:
        return None
    return code if code and veiled(code) == name else None


class Ledger:
    """The shared state of one cache directory. Everything may raise TierError, and `open` OSError.

    A file that is not whole is set aside. The marks in it are gone with it, so whatever was made until then counts no more.

    `veil`, where set, gives the veiled (kind, name) pairs of a record; without it veiled marks cover nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._database = Database(directory / "ledger.db", _SCHEMA, self._begin_anew, timeout=0.0, reason="ledger")
        self._counter = directory / "generation"
        self._lock = forks.Lock()
        self._marks: dict[tuple[str, str, str], int] = {}
        self._known = -1
        self._has_veiled = False
        self.veil: Callable[[Key, Record], Sequence[tuple[str, str]]] | None = None
        self.generation: Sequence[int] = (0,)
        self._cells: memoryview | None = None
        self._inode = 0

    def open(self) -> None:
        """Maps the counter; `generation[0]` is the machine's from here on."""
        descriptor = os.open(self._counter, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < _MAPPED:
                _lengthen(descriptor)
            self._map = mmap.mmap(descriptor, _MAPPED)
        finally:
            os.close(descriptor)
        self._inode = os.stat(self._counter).st_ino
        self._cells = memoryview(self._map).cast("Q")
        self.generation = self._cells

    def lost(self) -> bool:
        """Whether somebody took the counter away, so that nobody would hear of what is marked here; `open` makes another."""
        try:
            return self._cells is not None and os.stat(self._counter).st_ino != self._inode
        except OSError:
            return True

    def stored(self) -> None:
        """Says that something was stored, when everybody can read it already."""
        if self._cells is not None:
            # A number that nobody wrote before: of two who write at once the later one is news to all who read the first.
            self._cells[1] = time.time_ns() ^ (os.getpid() << 40)

    def last_store(self) -> int:
        """A number that is another one after each store on this machine; below zero where nobody says so."""
        return -1 if self._cells is None else self._cells[1]

    def has_stored_since(self, seen: int) -> bool:
        """Whether anybody did since `last_store` was `seen`, as far as is known."""
        return seen < 0 or seen != self.last_store()

    def mark(self, marks: Sequence[Mark]) -> None:
        """Records invalidations; every process of the machine heeds them from now on."""
        with self._write(_MARKING) as connection:
            connection.executemany(
                "INSERT INTO marks VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                [(mark.namespace, mark.kind, mark.value, mark.at) for mark in marks],
            )

    def bump(self) -> None:
        """Sends every process of the machine back to disk for its next read."""
        with self._write(_BOUND):
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
        subjects = [
            (EVERYWHERE, "namespace", ""),
            (key.namespace, "namespace", ""),
            (key.namespace, "key", key.digest.hex()),
            (key.namespace, "function", key.function),
            (EVERYWHERE, "function", key.function),
        ]
        subjects += [(space, "tag", tag) for tag in record.tags for space in (key.namespace, EVERYWHERE)]
        if self._has_veiled and self.veil is not None:
            veils = self.veil(key, record)
            subjects += [(space, kind, name) for kind, name in veils for space in (key.namespace, EVERYWHERE)]
        return any(marks.get(subject, 0) >= record.created for subject in subjects)

    def add_totals(self, amounts: Mapping[str, Mapping[str, float]]) -> None:
        """Adds counters per function to the machine's totals; new names begin at zero."""
        rows = [(name, counter, amount) for name, counters in amounts.items() for counter, amount in counters.items()]
        with self._database.transaction(_BOUND) as connection:
            connection.executemany(
                "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount", rows
            )

    def totals(self) -> dict[str, dict[str, float]]:
        """The machine's totals: function → counter → amount."""
        found: dict[str, dict[str, float]] = {}
        for name, counter, amount in self._database.rows(_TOTALS):
            found.setdefault(name, {})[counter] = amount
        return found

    def close(self) -> None:
        self._database.close()

    def _reload(self) -> None:
        with self._lock:
            seen = self.generation[0]
            rows = self._database.rows(_MARKS)
            if any(tuple(map(type, row)) != _MARK for row in rows):
                # What was invalidated is not known any more, as where the file is lost.
                self._database.rows(_ALTERED)
                self._begin_anew("altered_mark")
                rows = self._database.rows(_MARKS)
            rows = [(*name, self._credible(name, at)) for *name, at in rows]
            self._has_veiled = any(value.startswith(_VEIL) for _, _, value, _ in rows)
            self._marks = {(namespace, kind, value): at for namespace, kind, value, at in rows}
            self._known = seen

    def _credible(self, name: Sequence[str], at: int) -> int:
        """When a mark was made: now, where a clock that was more than `SKEW` ahead says later; noted for everybody."""
        now = time.time_ns()
        if at <= now + SKEW:
            return at
        with suppress(TierError):
            self._database.rows(
                "UPDATE marks SET at = ? WHERE namespace = ? AND kind = ? AND value = ? AND at = ?", now, *name, at
            )
        return now

    @contextmanager
    def _write(self, wait: float) -> Iterator[sqlite3.Connection]:
        assert self._cells is not None
        with self._database.transaction(wait) as connection:
            # Never one that was there before, even where the file is a new one.
            generation = max(connection.execute("PRAGMA user_version").fetchone()[0], self._cells[0]) + 1
            connection.execute(f"PRAGMA user_version = {generation}")
            yield connection
        # After the commit, so that whoever sees the new generation finds the mark; and a number that only this
        # transaction has, so that two writers who swap here still leave a value that no reader has acted on.
        self._cells[0] = generation

    def _begin_anew(self, _reason: str) -> None:
        if self._cells is not None:
            with suppress(TierError):
                self.mark([Mark(EVERYWHERE, "namespace", "", time.time_ns())])


def _lengthen(descriptor: int) -> None:
    # A hole that finds no block when it is written kills the process (SIGBUS): the block is asked for now.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, _MAPPED)
    else:
        os.ftruncate(descriptor, _MAPPED)
