"""The disk tier, the only home of diskcache.

diskcache pickles by default, and whoever can write its directory could then run code (CVE-2025-69872). Our `Disk`
stores bytes under digests and refuses everything else, on the way in and on the way out.

Reads go straight to diskcache's own SQLite file with one SELECT (0.93 of `Cache.get`, docs/performance.md); writes go
through diskcache. Its default eviction order is kept because the others write on every read. Culling happens in the
background, by `cull`, and spares pinned entries: diskcache's `tag` column says which they are.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

from cachekit import records
from cachekit.errors import IntegrityError, TierError, TierFull, TierUnavailable
from cachekit.model import EVERYWHERE, FOREVER, NANOSECONDS, Key, Record

if TYPE_CHECKING:
    from cachekit.records import Header

INLINE_LIMIT: Final = 100 * 1024
"""Bytes up to which a record stands in the SQLite file; above, a file of its own is faster (reference: 64-100 kB)."""

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
        self._report = report
        self._cache: diskcache.Cache | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._since_cull = 0

    def get(self, key: Key) -> Record | None:
        try:
            row = self._reader().execute(_SELECT, (key.digest,)).fetchone()
            if row is None:
                return None
            data = self._data(*row)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
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
        expire = None
        if record.expires != FOREVER:
            expire = max(0.0, (record.expires - time.time_ns()) / NANOSECONDS + record.grace)
        try:
            self._open().set(key.digest, data, expire=expire, tag=_tag(key, record), retry=True)
        except (sqlite3.Error, OSError) as error:
            raise self._failed_write(error) from error
        self._since_cull += len(data)

    def drop(self, key: Key) -> bool:
        try:
            return bool(self._open().delete(key.digest, retry=True))
        except (sqlite3.Error, OSError) as error:
            raise self._failed_write(error) from error

    def drop_where(self, namespace: str, tag: str = "") -> int:
        """Drops the entries of a namespace (or EVERYWHERE) that have `tag`, or all of them; returns how many."""
        space = "" if namespace == EVERYWHERE else f"\x1f{namespace}\x1f"
        label = f"\x1e{tag}\x1e" if tag else ""
        rows = self._rows("SELECT key, tag FROM Cache WHERE raw = 1 AND instr(tag, ?) > 0", (label or space,))
        chosen = [bytes(key) for key, text in rows if space in text]
        return sum(bool(self._open().delete(digest, retry=True)) for digest in chosen)

    def entries(self) -> Iterator[tuple[bytes, Header]]:
        """(digest, header) of every entry, newest first; payloads are not read."""
        rows = self._rows("SELECT key, mode, filename, substr(value, 1, 4096) FROM Cache ORDER BY store_time DESC", ())
        for key, mode, filename, value in rows:
            try:
                yield bytes(key), records.peek(self._data(mode, filename, value, 4096))
            except (IntegrityError, OSError):
                continue

    def raw(self, digest: bytes) -> bytes | None:
        """The stored bytes under a digest, unverified."""
        rows = self._rows(_SELECT, (digest,))
        return self._data(*rows[0]) if rows else None

    def volume(self) -> int:
        """Bytes on disk, the SQLite file included."""
        return int(self._open().volume())

    def wants_culling(self) -> bool:
        """Whether enough was written since the last `cull` to make another worth its while."""
        return self._since_cull > max(self._limit // 20, 1 << 16)

    def cull(self, *, everything_expired: bool = True) -> int:
        """Drops what expired, then the oldest unpinned entries until the limit holds; returns how many."""
        self._since_cull = 0
        try:
            cache = self._open()
            gone = int(cache.expire(retry=True)) if everything_expired else 0
            while cache.volume() > self._limit and (victims := self._rows(_OLDEST, ())):
                for (key,) in victims:
                    gone += bool(cache.delete(bytes(key), retry=True))
                    if cache.volume() <= self._limit:
                        break
        except (sqlite3.Error, OSError) as error:
            raise self._failed_write(error) from error
        return gone

    def close(self) -> None:
        with self._lock:
            cache, self._cache = self._cache, None
        reader = getattr(self._local, "reader", None)
        if reader is not None and self._local.pid == os.getpid():
            reader.close()
        self._local = threading.local()
        if cache is not None:
            cache.close()

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self._lock = threading.Lock()

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
            aside = self._set_aside()
            self._report(
                f"the cache file was corrupt ({error}); it was set aside as {aside} and the cache starts empty"
            )
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
        )

    def _set_aside(self) -> Path:
        aside = self._directory / f"cache.db.corrupt-{time.time_ns()}"
        (self._directory / "cache.db").rename(aside)
        for suffix in ("-wal", "-shm"):
            (self._directory / f"cache.db{suffix}").unlink(missing_ok=True)
        return aside

    def _reader(self) -> sqlite3.Connection:
        local = self._local
        try:
            if local.pid == os.getpid():
                found: sqlite3.Connection = local.reader
                return found
        except AttributeError:
            pass
        self._open()
        connection = sqlite3.connect(self._directory / "cache.db", timeout=10, isolation_level=None)
        local.reader, local.pid = connection, os.getpid()
        return connection

    def _rows(self, query: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._reader().execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _data(self, mode: int, filename: str | None, value: Any, limit: int = -1) -> bytes:
        if mode not in (MODE_RAW, MODE_BINARY) or (filename is None and type(value) is not bytes):
            _refuse("value")
        if filename is None:
            data: bytes = value
            return data
        with (self._directory / filename).open("rb") as file:
            return file.read(limit)

    def _unavailable(self, error: sqlite3.Error) -> TierError:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._start_over(error)
            return IntegrityError(f"the cache file is corrupt: {error}", reason="corrupt")
        return TierUnavailable(f"the cache file does not answer: {error}", reason="sqlite")

    def _start_over(self, error: sqlite3.Error) -> None:
        self.close()
        try:
            aside = self._set_aside()
        except OSError:
            return
        self._report(f"the cache file was corrupt ({error}); it was set aside as {aside} and the cache starts empty")

    def _failed_write(self, error: Exception) -> TierError:
        text = str(error).lower()
        if "full" in text or getattr(error, "errno", None) in (28, 122, 27):
            return TierFull(f"no room in the cache directory: {error}")
        if isinstance(error, sqlite3.Error):
            return self._unavailable(error)
        return TierUnavailable(f"cannot write the cache directory: {error}", reason="io")


def _tag(key: Key, record: Record) -> str:
    pinned = "+" if record.pin else "-"
    return f"{pinned}\x1f{key.namespace}\x1f" + "".join(f"\x1e{tag}\x1e" for tag in record.tags)
