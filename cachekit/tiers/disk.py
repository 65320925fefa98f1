"""The disk tier: records in diskcache's files.

Reads go straight to its SQLite file (`disk_file`), and so do writes (`disk_writer`). Its eviction is not used: most of its
orders write on every read. Culling happens in the background, by `cull`, oldest first, and spares pinned entries:
diskcache's `tag` column says which they are (`+`, or `@` and until when). Its `expire` column stays empty: the record
says when it ends.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit.errors import IntegrityError, TierFull
from cachekit.model import EVERYWHERE, NANOSECONDS, Key, Mark, Record
from cachekit.tiers import records
from cachekit.tiers.disk_file import CacheFile
from cachekit.tiers.disk_writer import BYTES, VALUE_FILE, Made, Writer, refuse

if TYPE_CHECKING:
    from cachekit.tiers.records import Header

AHEAD: Final = 300 * NANOSECONDS
"""Nanoseconds that a record may be ahead of now; one from a clock further ahead would outlive its TTL by as much."""

UNNAMED: Final = 3600 * NANOSECONDS
"""Nanoseconds that a value file may wait for its row; it is written first, and a killed process never writes the row."""

_NAMES: Final = "SELECT filename FROM Cache WHERE filename IS NOT NULL"
_SELECT: Final = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
_VOLUME: Final = """SELECT pages.page_count, sizes.page_size, value
    FROM pragma_page_count AS pages, pragma_page_size AS sizes, Settings WHERE key = 'size'"""
# SQLite does not see a bit that changed in its file: what then has another type is never named, or it would be for ever.
_OLDEST: Final = """SELECT key FROM Cache WHERE raw = 1 AND typeof(key) = 'blob' AND (substr(tag, 1, 1) = '-'
    OR (substr(tag, 1, 1) = '@' AND CAST(substr(tag, 2, 19) AS INTEGER) <= ?)) ORDER BY rowid LIMIT 64"""
_SOME: Final = """SELECT rowid, key, mode, filename, substr(value, 1, 4096) FROM Cache
    WHERE raw = 1 AND typeof(key) = 'blob' AND rowid < ? ORDER BY rowid DESC LIMIT 256"""
_TAGGED: Final = """SELECT key, tag FROM Cache
    WHERE raw = 1 AND typeof(key) = 'blob' AND typeof(tag) = 'text' AND instr(tag, ?) > 0"""
_RECOUNT: Final = """UPDATE Settings SET value =
    (SELECT coalesce(sum(size), 0) FROM Cache WHERE typeof(size) = 'integer') WHERE key = 'size'"""


class DiskTier:
    """Records under `directory`, at most about `limit` bytes of them besides the pinned ones.

    The directory is prepared by whoever composes the tiers; the file is opened on first use. `regain` is called where
    somebody took the directory away, to have it prepared again, and `stored` after each store.
    """

    name = "disk"
    blocking = False

    def __init__(
        self,
        directory: Path,
        limit: int,
        *,
        report: Callable[[str], None] = lambda _: None,
        regain: Callable[[], None] = lambda: None,
        stored: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._regain = regain
        self._tell = stored
        self._limit = limit
        self._file = CacheFile(directory, create=lambda: Made(self._file), report=report)
        self._writer = Writer(self._file)
        self._since_cull = 0

    def get(self, key: Key) -> Record | None:
        try:
            row = self._file.row(_SELECT, (key.digest,))
            if row is None:
                return None
            mode, filename, value = row
            data = value if mode in BYTES and type(value) is bytes else self._data(mode, filename, value)
        except FileNotFoundError:
            return None
        except (sqlite3.Error, OSError) as error:
            raise self._file.unavailable(error) from error
        try:
            record = records.decode(key, data)
        except IntegrityError:
            self.drop(key)
            raise
        return record if record.created <= time.time_ns() + AHEAD else None

    def put(self, key: Key, record: Record) -> None:
        data = records.encode(key, record)
        if self._file.lost():
            self._regain()
            self._file.forget()
        try:
            self._writer.add(key.digest, data, _tag(key, record))
        except (sqlite3.Error, OSError) as error:
            raise self._file.unavailable(error) from error
        self._tell()
        self._since_cull += len(data)

    def drop(self, key: Key) -> bool:
        return self._delete([key.digest]) > 0

    def drop_marked(self, mark: Mark) -> int:
        """Drops the entries that a mark of a namespace, a tag or a function covers; returns how many."""
        if mark.kind == "function":
            return self._drop_function(mark.namespace, records.function_text(mark.value))
        return self.drop_where(mark.namespace, mark.value if mark.kind == "tag" else "")

    def drop_where(self, namespace: str, tag: str = "") -> int:
        """Drops the entries of a namespace (or EVERYWHERE) that have `tag`, or all of them; returns how many."""
        space = "" if namespace == EVERYWHERE else f"\x1f{namespace}\x1f"
        label = f"\x1e{tag}\x1e" if tag else ""
        rows = self._file.rows(_TAGGED, (label or space,))
        chosen = [bytes(key) for key, text in rows if space in text]
        return self._delete(chosen)

    def _drop_function(self, namespace: str, function: str) -> int:
        named = ((digest, header.namespace) for digest, header in self.entries() if header.function == function)
        return self._delete([digest for digest, space in named if namespace in (space, EVERYWHERE)])

    def entries(self) -> Iterator[tuple[bytes, Header]]:
        """(digest, header) of every entry, newest first; payloads are not read."""
        last = (1 << 63) - 1
        while some := self._file.rows(_SOME, (last,)):
            for last, key, mode, filename, value in some:  # noqa: B007 - where the next look begins
                try:
                    yield bytes(key), records.peek(self._data(mode, filename, value, 4096))
                except (IntegrityError, OSError):
                    continue

    def raw(self, digest: bytes) -> bytes | None:
        """The stored bytes under a digest, unverified."""
        rows = self._file.rows(_SELECT, (digest,))
        return self._data(*rows[0]) if rows else None

    def volume(self) -> int:
        """Bytes on disk, the SQLite file and its log included."""
        return self.stored() + self._logged()

    def wants_culling(self) -> bool:
        """Whether enough was written since the last `cull` to make another worth its while."""
        return self._since_cull > max(self._limit // 20, 1 << 16)

    def cull(self, *, everything_expired: bool = False) -> int:
        """Drops what expired, then the oldest unpinned entries, until the limit holds; returns how many.

        What expired goes only when room is needed, or with `everything_expired`.
        """
        self._since_cull = 0
        self._file.checkpoint()
        # What somebody who reads keeps in the log counts; but not so that everything else would have to go for it.
        room = max(self._limit - self._logged(), self._limit // 2)
        gone = self._drop_expired() if self.stored() > room or everything_expired else 0
        while self.stored() > room and (victims := self._file.rows(_OLDEST, (time.time_ns(),))):
            for (key,) in victims:
                gone += self._delete([bytes(key)])
                if self.stored() <= room:
                    break
        self._file.checkpoint()
        return gone

    def collect(self, now: int) -> int:
        """Removes value files that no row names, unchanged for an hour before `now` (ns); returns how many."""
        # First the files: a row that is written meanwhile then has a file that was not looked at.
        old = [path for path in self._directory.glob("[0-9a-f][0-9a-f]/*/*.val") if _age(path, now) > UNNAMED]
        named = {self._directory / name for (name,) in self._file.rows(_NAMES)} if old else set[Path]()
        lost = [path for path in old if path not in named]
        for path in lost:
            self._writer.disk.remove(str(path.relative_to(self._directory)))
        return len(lost)

    def close(self) -> None:
        """Lets go of the file; a later call opens it again."""
        self._file.forget()

    def stored(self) -> int:
        """Bytes on disk without the log, which comes and goes."""
        ((pages, size, stored),) = self._file.rows(_VOLUME)
        if type(stored) is not int:
            self._file.rows(_RECOUNT)
            ((pages, size, stored),) = self._file.rows(_VOLUME)
        return int(pages) * int(size) + int(stored)

    def _logged(self) -> int:
        try:
            return (self._directory / "cache.db-wal").stat().st_size
        except OSError:  # there is none
            return 0

    def _drop_expired(self) -> int:
        now = time.time_ns()
        return self._delete([digest for digest, header in self.entries() if header.over(now)])

    def _delete(self, digests: list[bytes]) -> int:
        try:
            return sum(map(self._writer.delete, digests))
        except (sqlite3.Error, OSError) as error:
            failure = self._file.unavailable(error)
            if not isinstance(failure, TierFull) or not self._unlink(digests):
                raise failure from error
        return self._delete(digests)

    def _unlink(self, digests: list[bytes]) -> int:
        # A row takes room to delete, its file gives some: a row without one is a miss, and goes the next time.
        names = [name for digest in digests for (_, name, _) in self._file.rows(_SELECT, (digest,))]
        return self._writer.remove(names)

    def _data(self, mode: int, filename: str | None, value: Any, limit: int = -1) -> bytes:
        if mode not in BYTES or (filename is None and type(value) is not bytes):
            refuse("value")
        if filename is None:
            return bytes(value)
        if type(filename) is not str or not VALUE_FILE.fullmatch(filename):
            raise IntegrityError("a row names no value file of the cache's")
        with (self._directory / filename).open("rb") as file:
            return file.read(limit)


def _tag(key: Key, record: Record) -> str:
    pinned = "-" if not record.pin else "+" if record.pin == 1 else f"@{record.pin:019d}"
    return f"{pinned}\x1f{key.namespace}\x1f" + "".join(f"\x1e{tag}\x1e" for tag in record.tags)


def _age(path: Path, now: int) -> int:
    try:
        return now - path.stat().st_mtime_ns
    except OSError:  # gone meanwhile
        return 0
