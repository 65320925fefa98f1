"""diskcache's SQLite file, read by one SELECT where diskcache would do more, and what its errors mean.

diskcache waits for other writers without end and opens its own connections; here it gets ours, and a write that somebody
else holds up gives up after `WAIT` seconds. A read never waits.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cachekit.errors import IntegrityError, TierError, TierFull, TierUnavailable
from cachekit.files.connections import Connections
from cachekit.files.sqlite import all_or_nothing, corrupt, is_busy, is_full, patiently, set_aside, write_ahead

WAIT: Final = 0.25
"""Seconds that a store waits for other writers; a hit waits for nobody."""

OPENING: Final = 1.0
"""Seconds that it waits for others who make the file at the same moment."""

STUCK: Final = 1.0
"""Seconds after a wait in vain in which no other store waits."""

MAPPED: Final = 1 << 30
"""Bytes of the SQLite file that are read as memory; with diskcache's 64 MiB a hit among 100 000 entries took a third
longer than among 1 000."""

# Few pages of its own: the file is read as mapped memory, and these count in none of our limits.
PRAGMAS: Final = {"auto_vacuum": 1, "cache_size": 512, "mmap_size": MAPPED, "journal_size_limit": 1 << 20}
_TABLES: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('Cache', 'Settings')"


class CacheFile:
    """`cache.db` in `directory`. `create` makes its tables, within a transaction of this thread's connection."""

    def __init__(self, directory: Path, *, create: Callable[[], object], report: Callable[[str], None]) -> None:
        self.directory = directory
        self.connections = Connections(directory / "cache.db", self._prepare, self._repair)
        self.row = self.connections.row
        self._create = create
        self._report = report
        self._stuck_until = 0.0

    def rows(self, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with self.connections.use() as connection:
                return connection.execute(query, arguments).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self.unavailable(error) from error

    def checkpoint(self) -> None:
        """Moves the log into the file, as far as nobody reads it, and there is room."""
        with suppress(TierFull):
            self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def lost(self) -> bool:
        """Whether somebody took the file away under this thread's connection."""
        return self.connections.mine.lost()

    def forget(self) -> None:
        """Lets every thread connect again."""
        self.connections.forget()

    def unavailable(self, error: sqlite3.Error | OSError) -> TierError:
        """What an error means to a caller; a corrupt file is set aside on the way, and nobody waits for a held one."""
        if self._repair(error):
            return IntegrityError(f"the cache file is corrupt: {error}", reason="corrupt")
        if is_full(error):
            return TierFull(f"no room in the cache directory: {error}")
        if is_busy(error):
            self._stuck_until = time.monotonic() + STUCK
            return TierUnavailable(f"another process holds the cache file: {error}", reason="busy")
        reason = "sqlite" if isinstance(error, sqlite3.Error) else "io"
        return TierUnavailable(f"the cache file does not answer: {error}", reason=reason)

    def _repair(self, error: sqlite3.Error | OSError) -> bool:
        found = corrupt(error)
        if found and set_aside(self.connections, error):
            self._report("the cache starts empty: its file was corrupt")
        return found

    def patience(self) -> float:
        """Seconds that a store waits for other writers now."""
        return 0.0 if time.monotonic() < self._stuck_until else WAIT

    def _prepare(self, connection: sqlite3.Connection) -> None:
        patiently(lambda: self._begin(connection), OPENING if self.patience() else 0.0)

    def _begin(self, connection: sqlite3.Connection) -> None:
        for name, value in PRAGMAS.items():
            # Only where it differs: setting one may write, which a reader must not wait for.
            if connection.execute(f"PRAGMA {name}").fetchone() != (value,):
                connection.execute(f"PRAGMA {name} = {value}").fetchall()
        write_ahead(connection)
        if connection.execute(_TABLES).fetchone() != (2,):
            with all_or_nothing(connection):
                if connection.execute(_TABLES).fetchone() != (2,):
                    self._create()
