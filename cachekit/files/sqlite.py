"""What processes share in files: SQLite, with a connection for each thread and a corrupt file set aside; and a lock."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from cachekit.errors import TierError, TierFull, TierUnavailable
from cachekit.files.locks import NO_LOCKS, has_locks, try_lock, unlock

_BUSY_SECONDS: Final = 2.0
_LOCK_POLL_SECONDS: Final = 0.01
_abandoned: list[sqlite3.Connection] = []


class Database:
    """`schema` is run once per connection. `report` hears `corrupt_<stem>` when a file had to be set aside."""

    def __init__(self, path: Path, schema: str, report: Callable[[str], None]) -> None:
        self.path = path
        self._schema = schema
        self._report = report
        self._local = threading.local()
        self._held: weakref.WeakSet[_Held] = weakref.WeakSet()

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection, in autocommit mode.

        Whatever SQLite raises inside becomes a TierError: TierFull, `corrupt` (the file was set aside and the next use
        starts a new one) or `database`.
        """
        held: _Held | None = getattr(self._local, "held", None)
        try:
            if held is None or held.pid != os.getpid():
                held = self._open()
            yield held.connection
        except sqlite3.OperationalError as error:
            full = "full" in str(error)
            kind = TierFull if full else TierError
            raise kind(f"{self.path}: {error}", reason="full" if full else "database") from error
        except sqlite3.DatabaseError as error:
            self._set_aside(held)
            raise TierError(f"{self.path} is corrupt ({error}) and was set aside", reason="corrupt") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """As `use`, all or nothing."""
        with self.use() as connection, all_or_nothing(connection):
            yield connection

    def rows(self, query: str, *values: str | bytes | float | None) -> list[Any]:
        """All that one statement gives; as `use`."""
        with self.use() as connection:
            return connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close every thread's connection; nobody may be using one."""
        for held in list(self._held):
            held.close()
        self._local = threading.local()

    def _open(self) -> _Held:
        try:
            held = _Held(self.path)
            try:
                held.prepare(self._schema)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._set_aside(held)
                held = _Held(self.path)
                held.prepare(self._schema)
        except OSError as error:
            raise TierError(f"{self.path}: {error}", reason="database") from error
        self._held.add(held)
        self._local.held = held
        return held

    def _set_aside(self, held: _Held | None) -> None:
        self._local = threading.local()
        if held is None or not held.is_current(self.path):
            return
        held.close()
        # The log first: a new database must never find the old one's.
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(OSError):
                os.replace(f"{self.path}{suffix}", f"{self.path}.corrupt{suffix}")
        self._report(f"corrupt_{self.path.stem}")


@contextlib.contextmanager
def all_or_nothing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction, undone by whatever interrupts it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # half a transaction must not stay open
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def write_ahead(connection: sqlite3.Connection) -> None:
    """Sets the connection to a write-ahead log that survives a killed process.

    Two connections that make a new file at once get SQLITE_BUSY here without SQLite's own waiting, because each would
    have to wait for the other to give way.
    """
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() >= end:
                raise
            time.sleep(_LOCK_POLL_SECONDS)
    connection.execute("PRAGMA synchronous=NORMAL")


class _Held:
    """A connection, the process it belongs to and the file it was opened on."""

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self.connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._inode = os.stat(path).st_ino

    def prepare(self, schema: str) -> None:
        write_ahead(self.connection)
        self.connection.executescript(schema)

    def is_current(self, path: Path) -> bool:
        try:
            return os.stat(path).st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        if self.pid == os.getpid():
            self.connection.close()
        else:
            # Closing the parent's connection here could checkpoint under its feet.
            _abandoned.append(self.connection)

    def __del__(self) -> None:
        if hasattr(self, "connection"):
            self.close()


@contextlib.contextmanager
def locked(path: Path, end: float) -> Iterator[None]:
    """Hold the lock file `path` against threads and processes; TierUnavailable at `end` of `time.monotonic`."""
    if not has_locks():
        raise TierUnavailable(NO_LOCKS, reason="no_locks")
    with _opened(path) as file:
        while not try_lock(file.fileno()):
            if time.monotonic() >= end:
                raise TierUnavailable(f"another process holds {path}; try again when it is done", reason="locked")
            time.sleep(_LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            # Said aloud: a child forked meanwhile has the descriptor too, and would keep the lock.
            unlock(file.fileno())


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("a")
    except OSError as error:
        raise TierError(f"{path} cannot be locked: {error}", reason="lock_file") from error
