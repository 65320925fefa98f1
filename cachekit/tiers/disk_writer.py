"""What writes diskcache's file: rows, and the value files that they name. The only home of diskcache.

diskcache pickles by default, and whoever can write its directory could then run code (CVE-2025-69872). Our `Disk`
stores bytes under digests and refuses everything else, on the way in and on the way out.

A store touches as few pages of the file as can be: no index but the one by key, no counter that nobody asks for. Rows are
in the order of their storing, because one that is replaced goes to the end.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

from cachekit.errors import IntegrityError
from cachekit.files.sqlite import all_or_nothing
from cachekit.tiers.disk_file import PRAGMAS, CacheFile

INLINE_LIMIT: Final = 100 * 1024
"""Bytes up to which a record stands in the SQLite file; above, a file of its own is faster (reference: 64-100 kB)."""

VALUE_FILE: Final = re.compile(r"([0-9a-f]{2}[\\/]){2}[0-9a-f]{28}\.val")
"""The name of a value file, below the directory."""

BYTES: Final = (MODE_RAW, MODE_BINARY)
"""How a row says that its value is bytes, in the row or in a file."""

_INSERT: Final = """INSERT OR IGNORE INTO Cache (key, raw, store_time, access_time, tag, size, mode, filename, value)
    VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?)"""
_NAME: Final = "SELECT filename FROM Cache WHERE key = ? AND raw = 1"
_DELETE: Final = "DELETE FROM Cache WHERE key = ? AND raw = 1"
_LEAN: Final = (
    "DROP INDEX Cache_expire_time",
    "DROP TRIGGER Settings_count_insert",
    "DROP TRIGGER Settings_count_delete",
    "DROP TRIGGER Settings_size_insert",
    """CREATE TRIGGER Settings_size_insert AFTER INSERT ON Cache FOR EACH ROW WHEN NEW.size > 0
    BEGIN UPDATE Settings SET value = value + NEW.size WHERE key = 'size'; END""",
)
"""What is changed of a new file. The size that counts is that of value files."""


class RefusedPickle(IntegrityError):
    """A row says that it holds a pickle; it is never loaded."""

    reason = "pickle_refused"


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """A `diskcache.Disk` for which a key is a digest, a value is bytes, and a pickle does not exist."""

    def put(self, key: Any) -> Any:
        if type(key) is not bytes:
            refuse("key")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: bool) -> Any:
        if not raw:
            refuse("key")
        return bytes(key)

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if type(value) is not bytes:
            refuse("value")
        return super().store(value, read, **({} if key is None else {"key": key}))

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode not in BYTES:
            refuse("value")
        return super().fetch(mode, filename, value, read)


def refuse(what: str) -> NoReturn:
    """Raises RefusedPickle."""
    raise RefusedPickle(f"a {what} that is not bytes would have to be pickled; cachekit refuses pickles on disk")


class Writer:
    """Writes into `file`. Raises what SQLite and the file system raise."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file
        self.disk = BytesDisk(str(file.directory), min_file_size=INLINE_LIMIT)

    def add(self, digest: bytes, data: bytes, tag: str) -> None:
        """Stores `data` under `digest`, in the place of what stood there."""
        size, mode, filename, value = self.disk.store(data, False)
        now = time.time()
        row = (digest, now, now, tag, size, mode, filename, value)
        try:
            replaced = self._written(digest, row)
        except BaseException:  # whatever it was, the new file has no row
            self.remove([filename])
            raise
        self.remove(replaced)

    def delete(self, digest: bytes) -> bool:
        """Whether there was anything."""
        with self._file.connections.use() as connection, all_or_nothing(connection, self._file.patience()):
            gone = _deleted(connection, digest)
        self.remove(gone)
        return bool(gone)

    def _written(self, digest: bytes, row: tuple[Any, ...]) -> list[Any]:
        """The value files that no row names any more."""
        with self._file.connections.use() as connection, all_or_nothing(connection, self._file.patience()):
            # New, as nearly every key that is stored: one statement.
            if connection.execute(_INSERT, row).rowcount:
                return []
            gone = _deleted(connection, digest)
            connection.execute(_INSERT, row)
            return gone

    def remove(self, names: Iterable[Any]) -> int:
        """Deletes value files, and nothing else, whatever a rotten row names; how many there were."""
        files = [name for name in names if type(name) is str and VALUE_FILE.fullmatch(name)]
        there = [name for name in files if os.path.exists(os.path.join(self._file.directory, name))]
        for name in there:
            self.disk.remove(name)
        return len(there)


def _deleted(connection: sqlite3.Connection, digest: bytes) -> list[Any]:
    gone = connection.execute(_NAME, (digest,)).fetchall()
    connection.execute(_DELETE, (digest,))
    return [name for (name,) in gone]


class Made(diskcache.Cache):  # type: ignore[misc]
    """diskcache's constructor makes the tables, over the connection on which a transaction is open."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file
        pragmas = {f"sqlite_{name}": value for name, value in PRAGMAS.items()}
        settings = {"cull_limit": 0, "eviction_policy": "none", "disk_min_file_size": INLINE_LIMIT, **pragmas}
        super().__init__(str(file.directory), timeout=0, disk=BytesDisk, **settings)
        for statement in _LEAN:
            self._con.execute(statement)

    @property
    def _con(self) -> sqlite3.Connection:
        connection = self._file.connections.mine.connection
        assert connection is not None  # opened by whoever began the transaction
        return connection

    @property
    def _sql_retry(self) -> Callable[..., sqlite3.Cursor]:
        return self._con.execute

    def close(self) -> None:
        """Nothing: the connections are not diskcache's."""
