"""What processes share in files: SQLite, with a connection for each thread and a corrupt file set aside; and a lock."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from cachekit.errors import TierError, TierFull, TierUnavailable
from cachekit.files.connections import Connections
from cachekit.files.locks import NO_LOCKS, NO_ROOM, has_locks, try_lock, unlock

_BUSY_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.01
_FIRST_POLL_SECONDS: Final = 0.0005


class Database:
    """`schema` is run once per connection. `report` hears `corrupt_<stem>` when a file had to be set aside.

    `timeout` is how long one statement waits for another process, in seconds; `reason` what its other errors are called.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        report: Callable[[str], None],
        *,
        timeout: float = _BUSY_SECONDS,
        reason: str = "database",
    ) -> None:
        self.path = path
        self._schema = schema
        self._report = report
        self._reason = reason
        self._connections = Connections(path, self._prepare, self._repair, timeout=timeout)

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection, in autocommit mode.

        Whatever SQLite raises inside becomes a TierError: TierFull, `corrupt` (the file was set aside and the next use
        starts a new one) or `reason`.
        """
        if self._connections.mine.lost():
            self._connections.forget()
        try:
            with self._connections.use() as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise self._told(error) from error

    @contextlib.contextmanager
    def transaction(self, wait: float = 0.0) -> Iterator[sqlite3.Connection]:
        """As `use`, all or nothing; begins within `wait` seconds and the timeout."""
        with self.use() as connection, all_or_nothing(connection, wait):
            yield connection

    def rows(self, query: str, *values: str | bytes | float | None) -> list[Any]:
        """All that one statement gives; as `use`."""
        with self.use() as connection:
            return connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Lets go of every thread's connection; a later call opens new ones."""
        self._connections.forget()

    def _told(self, error: sqlite3.Error | OSError) -> TierError:
        if self._repair(error):
            return TierError(f"{self.path} is corrupt ({error}) and was set aside", reason="corrupt")
        if is_full(error):
            return TierFull(f"{self.path}: {error}", reason="full")
        return TierError(f"{self.path}: {error}", reason=self._reason)

    def _repair(self, error: sqlite3.Error | OSError) -> bool:
        found = corrupt(error)
        if found and set_aside(self._connections, error):
            self._report(f"corrupt_{self.path.stem}")
        return found

    def _prepare(self, connection: sqlite3.Connection) -> None:
        patiently(lambda: self._begin(connection), _BUSY_SECONDS)

    def _begin(self, connection: sqlite3.Connection) -> None:
        write_ahead(connection)
        connection.executescript(self._schema)


def corrupt(error: BaseException) -> bool:
    """Whether an error of SQLite means that the file is none of its own, or not whole."""
    if isinstance(error, sqlite3.OperationalError):
        return str(error).startswith("no such table")  # an empty file is a database too
    # SQLITE_CORRUPT and SQLITE_NOTADB; the other errors of a misused connection are subclasses.
    return type(error) is sqlite3.DatabaseError


def set_aside(connections: Connections, error: BaseException) -> bool:
    """Moves a corrupt file to `NAME.corrupt-<ns>`, in place of an earlier one; False where another did it before."""
    path, held = connections.path, connections.mine
    lost = held.connection is not None and held.lost()
    connections.forget()
    if lost or not path.exists():
        return False
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    for earlier in path.parent.glob(f"{path.name}.corrupt-*"):
        with contextlib.suppress(OSError):
            earlier.unlink()
    try:
        # The log first: a new database must never find the old one's.
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.rename(aside)
    except OSError:
        return False
    logging.getLogger("cachekit").warning(
        "%s was corrupt (%s); it was set aside as %s and a new one is begun", path, error, aside
    )
    return True


def all_or_nothing(connection: sqlite3.Connection, wait: float = 0.0) -> _Transaction:
    """A transaction, undone by whatever interrupts it; waits `wait` seconds for other writers."""
    return _Transaction(connection.execute, wait)


class _Transaction:
    # No generator: those cost a store three times as much.
    def __init__(self, execute: Callable[[str], object], wait: float) -> None:
        self._execute, self._wait = execute, wait

    def __enter__(self) -> None:
        patiently(lambda: self._execute("BEGIN IMMEDIATE"), self._wait)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._undo()
            return
        try:
            self._execute("COMMIT")
        except BaseException:  # half a transaction must not stay open
            self._undo()
            raise

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._execute("ROLLBACK")


def patiently(work: Callable[[], object], wait: float) -> None:
    """Does `work`, again and again while somebody else holds a lock that it needs, for `wait` seconds.

    SQLite's own waiting cannot do it everywhere: two connections that make a new file at once get SQLITE_BUSY without
    it, because each would have to wait for the other to give way.
    """
    end, pause = time.monotonic() + wait, _FIRST_POLL_SECONDS
    while True:
        try:
            work()
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _POLL_SECONDS)


def is_busy(error: BaseException) -> bool:
    """Whether somebody else holds the lock that was wanted."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def is_full(error: sqlite3.Error | OSError) -> bool:
    """Whether there is no room: for the file, its log, or (from Python 3.11 on) the index of its log."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return "full" in str(error) or getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE"


def write_ahead(connection: sqlite3.Connection) -> None:
    """Sets the connection to a write-ahead log that survives a killed process."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@contextlib.contextmanager
def locked(path: Path, end: float) -> Iterator[None]:
    """Hold the lock file `path` against threads and processes; TierUnavailable at `end` of `time.monotonic`."""
    if not has_locks():
        raise TierUnavailable(NO_LOCKS, reason="no_locks")
    with _opened(path) as file:
        while not try_lock(file.fileno()):
            if time.monotonic() >= end:
                raise TierUnavailable(f"another process holds {path}; try again when it is done", reason="locked")
            time.sleep(_POLL_SECONDS)
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
