"""A connection to a SQLite file for each thread, and none of them open while the process forks.

SQLite keeps what this process has locked in a table of its own, by file, and a child inherits the table but not the
locks: a write that was under way at the fork would lock the child out for ever, and a lock that it believes it has is
one that everybody else may take. So a fork waits until no thread is inside SQLite, closes every connection, and both
sides open new ones when they need them. Where a thread does not leave in time, the child does without the file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cachekit.errors import TierUnavailable
from cachekit.files import forks


class Held:
    """A thread's connection. `lock` is held while anything is done with it; who holds it may `open` it."""

    def __init__(self, owner: Connections) -> None:
        self.path = owner.path
        self.lock = threading.RLock()
        self.inside = 0
        self.connection: sqlite3.Connection | None = None
        self._inode = 0
        self._place = os.fspath(owner.path)  # looked at by every store, and a Path is slow to look at
        self._owner = owner
        _fence.add(self)

    def open(self) -> sqlite3.Connection:
        """The connection. Raises sqlite3.Error, OSError, and TierUnavailable in a child that must not touch the file."""
        if self.connection is not None:
            return self.connection
        if self.path in _fence.barred:
            raise TierUnavailable(f"{self.path} was in use when this process was forked", reason="forked")
        try:
            return self._opened()
        except sqlite3.Error as error:
            if not self._owner.repair(error):
                raise
        return self.connection or self._opened()

    def _opened(self) -> sqlite3.Connection:
        timeout = self._owner.timeout
        self.connection = sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)
        try:
            self._inode = os.stat(self.path).st_ino
            self._owner.prepare(self.connection)
        except BaseException:  # half a connection is none
            self.close()
            raise
        return self.connection

    def lost(self) -> bool:
        """Whether the open connection leads to a file that does not stand at the path any more, or its directory is gone."""
        try:
            return os.stat(self._place).st_ino != self._inode and self.connection is not None
        except OSError:
            return self.connection is not None or not self.path.parent.exists()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def abandon(self) -> None:
        """Keeps the parent's connection, never to be looked at: even closing it here could tear the parent's file."""
        self.lock = threading.RLock()
        if self.connection is not None:
            _abandoned.append(self.connection)
            self.connection = None

    def __del__(self) -> None:
        if getattr(self, "connection", None) is not None and _fence is not None:
            with _fence.gate:
                self.close()


class Connections:
    """Those of one file; `prepare` is run on each new one, and where it fails once more if `repair` says so.

    `timeout` is SQLite's own waiting for a lock, in seconds.
    """

    def __init__(
        self,
        path: Path,
        prepare: Callable[[sqlite3.Connection], None],
        repair: Callable[[sqlite3.Error], bool],
        *,
        timeout: float = 0.0,
    ) -> None:
        self.path = path
        self.prepare = prepare
        self.repair = repair
        self.timeout = timeout
        self._local = threading.local()

    @property
    def mine(self) -> Held:
        """This thread's."""
        try:
            return self._local.held  # type: ignore[no-any-return]
        except AttributeError:
            held = self._local.held = Held(self)
            return held

    def row(self, query: str, arguments: tuple[Any, ...]) -> Any:
        """The first row of a statement that has one at most, else None: `use`, without its costs."""
        held = self.mine
        with held.lock:
            return (held.connection or held.open()).execute(query, arguments).fetchone()

    def use(self) -> _Use:
        """A `with` block of this thread's connection, opened; entering raises as `Held.open`."""
        return _Use(self.mine)

    def forget(self) -> None:
        """Lets every thread connect again; connections are closed when their threads are done with them."""
        held = self.mine
        with held.lock:
            held.close()
        self._local = threading.local()
        self._local.held = held


class _Use:
    # No generator: those cost a store three times as much.
    def __init__(self, held: Held) -> None:
        self._held, self._lock = held, held.lock

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        self._held.inside += 1
        try:
            return self._held.connection or self._held.open()
        except BaseException:  # whatever it was: nobody is inside
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._held.inside -= 1
        self._lock.release()


class _Fence:
    """All of this process's connections, shut while it forks."""

    def __init__(self) -> None:
        self.gate = threading.RLock()
        self.barred: frozenset[Path] = frozenset()
        self._all: weakref.WeakSet[Held] = weakref.WeakSet()
        self._forker = 0
        self._late: set[int] = set()
        self._shut: list[Held] = []
        self._inside: set[Path] = set()
        forks.enrol_pausing(self)

    def add(self, held: Held) -> None:
        forks.watch()
        with self.gate:
            self._all.add(held)

    def pause_for_fork(self, end: float) -> None:
        if not self.gate.acquire(timeout=max(0.0, end - time.monotonic())):
            self._late.add(threading.get_ident())
            return
        self._forker, self._inside = threading.get_ident(), set()
        for held in list(self._all):
            if held.lock.acquire(timeout=max(0.0, end - time.monotonic())):
                self._shut.append(held)
                if not held.inside:
                    held.close()
                    continue
            self._inside.add(held.path)

    def resume_after_fork(self) -> None:
        if self._forker != threading.get_ident():
            self._late.discard(threading.get_ident())
            return
        self._forker = 0
        for held in self._shut:
            held.lock.release()
        self._shut.clear()
        self.gate.release()

    def renew_after_fork(self) -> None:
        if threading.get_ident() in self._late:  # nobody looked: any of them may have been in use
            self._inside = {held.path for held in self._all}
        self.barred |= self._inside
        self._forker, self._late, self._inside = 0, set(), set()
        self.gate = threading.RLock()
        self._shut.clear()
        for held in list(self._all):
            held.abandon()


_abandoned: Final[list[sqlite3.Connection]] = []
_fence: Final = _Fence()
