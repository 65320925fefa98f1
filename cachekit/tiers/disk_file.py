"""diskcache's SQLite file, read by one SELECT where diskcache would do more, and what to do when the file is corrupt.

Writes go through diskcache, in `disk`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachekit.errors import IntegrityError, TierError, TierFull, TierUnavailable
from cachekit.files.locks import NO_ROOM


class CacheFile:
    """`cache.db` in `directory`. `make` creates it; `close` is called before a corrupt one is set aside."""

    def __init__(
        self, directory: Path, *, make: Callable[[], Any], close: Callable[[], None], report: Callable[[str], None]
    ) -> None:
        self._directory = directory
        self._make = make
        self._close = close
        self._report = report
        self._local = threading.local()
        self._inherited: list[threading.local] = []

    @property
    def execute(self) -> Callable[..., sqlite3.Cursor]:
        """`execute` of this thread's connection."""
        try:
            return self._local.execute  # type: ignore[no-any-return]
        except AttributeError:
            return self._connect()

    def rows(self, query: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            return self.execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            raise self.unavailable(error) from error

    def forget(self) -> None:
        """Lets every thread connect again."""
        self._local = threading.local()

    def renew_after_fork(self) -> None:
        """SQLite's connections must not be used by a child, nor closed by it: they are kept, and never looked at."""
        self._inherited.append(self._local)
        self._local = threading.local()

    def unavailable(self, error: sqlite3.Error) -> TierError:
        """What an error of SQLite means to a caller; a corrupt file is set aside on the way."""
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._close()
            self.set_aside(error)
            return IntegrityError(f"the cache file is corrupt: {error}", reason="corrupt")
        return TierUnavailable(f"the cache file does not answer: {error}", reason="sqlite")

    def failed_write(self, error: Exception) -> TierError:
        if "full" in str(error).lower() or getattr(error, "errno", None) in NO_ROOM:
            return TierFull(f"no room in the cache directory: {error}")
        if isinstance(error, sqlite3.Error):
            return self.unavailable(error)
        return TierUnavailable(f"cannot write the cache directory: {error}", reason="io")

    def set_aside(self, error: sqlite3.Error) -> None:
        aside = self._directory / f"cache.db.corrupt-{time.time_ns()}"
        try:
            (self._directory / "cache.db").rename(aside)
            for suffix in ("-wal", "-shm"):
                (self._directory / f"cache.db{suffix}").unlink(missing_ok=True)
        except OSError:
            return  # another process was faster
        self._report(f"the cache file was corrupt ({error}); it was set aside as {aside} and the cache starts empty")

    def _connect(self) -> Callable[..., sqlite3.Cursor]:
        # diskcache's own connection of this thread, which it does not publish: what another connection has in its page
        # cache is void after each write here, and two reads after a write then cost as much as the write.
        connection: sqlite3.Connection = self._make()._con
        self._local.execute = connection.execute
        return connection.execute
