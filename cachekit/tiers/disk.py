"""The disk tier, the only home of diskcache.

diskcache pickles by default, and whoever can write its directory could then run code (CVE-2025-69872). Our `Disk`
stores bytes under digests and refuses everything else, on the way in and on the way out.

Reads go straight to diskcache's own SQLite file (`disk_file`), writes through diskcache. Its default eviction order is
kept because the others write on every read. Culling happens in the background, by `cull`, and spares pinned entries:
diskcache's `tag` column says which they are. Its `expire` column stays empty: the record says when it ends, and an
index that every store must keep sorted costs a tenth of the store.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

from cachekit.errors import IntegrityError, TierUnavailable
from cachekit.model import EVERYWHERE, Key, Record
from cachekit.tiers import records
from cachekit.tiers.disk_file import CacheFile

if TYPE_CHECKING:
    from cachekit.tiers.records import Header

INLINE_LIMIT: Final = 100 * 1024
"""Bytes up to which a record stands in the SQLite file; above, a file of its own is faster (reference: 64-100 kB)."""

MAPPED: Final = 1 << 30
"""Bytes of the SQLite file that are read as memory; with diskcache's 64 MiB a hit among 100 000 entries took a third
longer than among 1 000."""

_SELECT: Final = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
_OLDEST: Final = "SELECT key FROM Cache WHERE substr(tag, 1, 1) = '-' ORDER BY store_time LIMIT 64"


class RefusedPickle(IntegrityError):
    """A row says that it holds a pickle; it is never loaded."""

    reason = "pickle_refused"


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """A `diskcache.Disk` for which a key is a digest, a value is bytes, and a pickle does not exist."""

    def put(self, key: Any) -> Any:
        if type(key) is not bytes:
            _refuse("key")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: bool) -> Any:
        if not raw:
            _refuse("key")
        return bytes(key)

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if type(value) is not bytes:
            _refuse("value")
        return super().store(value, read, **({} if key is None else {"key": key}))

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode not in (MODE_RAW, MODE_BINARY):
            _refuse("value")
        return super().fetch(mode, filename, value, read)


def _refuse(what: str) -> NoReturn:
    raise RefusedPickle(f"a {what} that is not bytes would have to be pickled; cachekit refuses pickles on disk")


class DiskTier:
    """Records under `directory`, at most about `limit` bytes of them besides the pinned ones.

    The directory is prepared by whoever composes the tiers (`cache_directory`); the file is opened on first use.
    """

    name = "disk"
    blocking = False

    def __init__(self, directory: Path, limit: int, *, report: Callable[[str], None] = lambda _: None) -> None:
        self._directory = directory
        self._limit = limit
        self._cache: diskcache.Cache | None = None
        self._lock = threading.Lock()
        self._file = CacheFile(directory, make=self._open, close=self.close, report=report)
        self._since_cull = 0

    def get(self, key: Key) -> Record | None:
        try:
            row = self._file.execute(_SELECT, (key.digest,)).fetchone()
            if row is None:
                return None
            mode, filename, value = row
            data = value if mode == MODE_RAW and type(value) is bytes else self._data(mode, filename, value)
        except sqlite3.Error as error:
            raise self._file.unavailable(error) from error
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TierUnavailable(f"cannot read the cache directory: {error}", reason="io") from error
        try:
            return records.decode(key, data)
        except IntegrityError:
            self.drop(key)
            raise

    def put(self, key: Key, record: Record) -> None:
        data = records.encode(key, record)
        try:
            self._open().set(key.digest, data, tag=_tag(key, record), retry=True)
        except (sqlite3.Error, OSError) as error:
            raise self._file.failed_write(error) from error
        self._since_cull += len(data)

    def drop(self, key: Key) -> bool:
        try:
            return bool(self._open().delete(key.digest, retry=True))
        except (sqlite3.Error, OSError) as error:
            raise self._file.failed_write(error) from error

    def drop_where(self, namespace: str, tag: str = "") -> int:
        """Drops the entries of a namespace (or EVERYWHERE) that have `tag`, or all of them; returns how many."""
        space = "" if namespace == EVERYWHERE else f"\x1f{namespace}\x1f"
        label = f"\x1e{tag}\x1e" if tag else ""
        rows = self._file.rows("SELECT key, tag FROM Cache WHERE raw = 1 AND instr(tag, ?) > 0", (label or space,))
        chosen = [bytes(key) for key, text in rows if space in text]
        return sum(bool(self._open().delete(digest, retry=True)) for digest in chosen)

    def entries(self) -> Iterator[tuple[bytes, Header]]:
        """(digest, header) of every entry, newest first; payloads are not read."""
        rows = self._file.rows(
            "SELECT key, mode, filename, substr(value, 1, 4096) FROM Cache ORDER BY store_time DESC", ()
        )
        for key, mode, filename, value in rows:
            try:
                yield bytes(key), records.peek(self._data(mode, filename, value, 4096))
            except (IntegrityError, OSError):
                continue

    def raw(self, digest: bytes) -> bytes | None:
        """The stored bytes under a digest, unverified."""
        rows = self._file.rows(_SELECT, (digest,))
        return self._data(*rows[0]) if rows else None

    def volume(self) -> int:
        """Bytes on disk, the SQLite file included."""
        return int(self._open().volume())

    def wants_culling(self) -> bool:
        """Whether enough was written since the last `cull` to make another worth its while."""
        return self._since_cull > max(self._limit // 20, 1 << 16)

    def cull(self, *, everything_expired: bool = False) -> int:
        """Drops what expired, then the oldest unpinned entries, until the limit holds; returns how many.

        What expired goes only when room is needed, or with `everything_expired`.
        """
        self._since_cull = 0
        try:
            cache = self._open()
            over = cache.volume() > self._limit
            gone = self._drop_expired() if over or everything_expired else 0
            while cache.volume() > self._limit and (victims := self._file.rows(_OLDEST, ())):
                for (key,) in victims:
                    gone += bool(cache.delete(bytes(key), retry=True))
                    if cache.volume() <= self._limit:
                        break
        except (sqlite3.Error, OSError) as error:
            raise self._file.failed_write(error) from error
        return gone

    def close(self) -> None:
        with self._lock:
            cache, self._cache = self._cache, None
        self._file.forget()
        if cache is not None:
            cache.close()

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self._lock = threading.Lock()
        self._file.renew_after_fork()

    def _drop_expired(self) -> int:
        now = time.time_ns()
        ended = [digest for digest, header in self.entries() if header.over(now)]
        return sum(bool(self._open().delete(digest, retry=True)) for digest in ended)

    def _open(self) -> diskcache.Cache:
        if self._cache is None:
            with self._lock:
                if self._cache is None:
                    self._cache = self._opened()
        return self._cache

    def _opened(self) -> diskcache.Cache:
        try:
            return self._construct()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._file.set_aside(error)
            return self._construct()

    def _construct(self) -> diskcache.Cache:
        return diskcache.Cache(
            str(self._directory),
            disk=BytesDisk,
            disk_min_file_size=INLINE_LIMIT,
            eviction_policy="least-recently-stored",
            statistics=0,
            cull_limit=0,
            size_limit=self._limit,
            sqlite_mmap_size=MAPPED,
        )

    def _data(self, mode: int, filename: str | None, value: Any, limit: int = -1) -> bytes:
        if mode not in (MODE_RAW, MODE_BINARY) or (filename is None and type(value) is not bytes):
            _refuse("value")
        if filename is None:
            data: bytes = value
            return data
        with (self._directory / filename).open("rb") as file:
            return file.read(limit)


def _tag(key: Key, record: Record) -> str:
    pinned = "+" if record.pin else "-"
    return f"{pinned}\x1f{key.namespace}\x1f" + "".join(f"\x1e{tag}\x1e" for tag in record.tags)
