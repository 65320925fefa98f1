"""Who does the work: one caller of a process (Flights), one process of a machine (Leases), one stream (UnderWay).

In a process threads and tasks alike wait for the record of the one who leads. A leader that raises gives its exception to
everybody who waits. A leader that was cancelled (or interrupted) hands over: one of those who wait leads next. A call
that joins a flight which its own context already leads is re-entrant and goes alone, because waiting for itself would
never end.

A lease is a kernel lock on one byte of a file. The byte's offset comes from the key, so that one open file serves every
key. The kernel ends a lease in the instant its holder dies, whatever killed it, so there is nothing to renew and no flag
that could be left behind; POSIX record locks are not inherited by fork. They do not exclude the threads of one process:
a flight does that. A lease saves work and nothing depends on it: where locks are missing (Windows, some network
drives), everybody leads.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from cachekit.files import forks
from cachekit.files.locks import has_locks, lock_byte, unlock_byte
from cachekit.model import Record
from cachekit.plan.steps import ALONE, BUSY, LEAD, Standing

_leading: ContextVar[frozenset[bytes]] = ContextVar("cachekit_leading", default=frozenset())


class _Handover(Enum):
    OVER = "over"


_OVER: Final = _Handover.OVER


class Flights:
    """The flights under way, by key digest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[bytes, Future[Any]] = {}
        self._pid = os.getpid()

    def join(self, digest: bytes, *, wait: bool = True) -> Record | Standing:
        """LEAD, ALONE, BUSY (only with `wait=False`), or the leader's record; raises the leader's exception."""
        while True:
            seat = self._seat(digest, wait=wait)
            if isinstance(seat, Standing):
                return seat
            answer = seat.result()
            if answer is not _OVER:
                return ALONE if answer is None else answer

    async def ajoin(self, digest: bytes, *, wait: bool = True) -> Record | Standing:
        """Like `join`, without holding the event loop."""
        while True:
            seat = self._seat(digest, wait=wait)
            if isinstance(seat, Standing):
                return seat
            answer = await asyncio.wrap_future(seat)
            if answer is not _OVER:
                return ALONE if answer is None else answer

    def share(self, digest: bytes, record: Record | None) -> None:
        """Lands: everybody who waits, or still joins before `leave`, gets `record`, or goes alone for None."""
        flight = self._flights.get(digest)
        if flight is not None and not flight.done():
            flight.set_result(record)

    def leave(self, digest: bytes, error: BaseException | None) -> None:
        """The leader is done; without a `share` before, `error` decides what those who wait get."""
        _leading.set(_leading.get() - {digest})
        with self._lock:
            flight = self._flights.pop(digest, None)
        if flight is None or flight.done():
            return
        if isinstance(error, Exception):
            flight.set_exception(error)
        else:
            flight.set_result(_OVER)

    def _seat(self, digest: bytes, *, wait: bool) -> Future[Any] | Standing:
        if digest in _leading.get():
            return ALONE
        with self._lock:
            self._forget_the_parents()
            flight = self._flights.get(digest)
            if flight is not None:
                return flight if wait else BUSY
            # Running from the start: else cancelling one follower would cancel the flight for everybody.
            flight = self._flights[digest] = Future()
            flight.set_running_or_notify_cancel()
        _leading.set(_leading.get() | {digest})
        return LEAD

    def _forget_the_parents(self) -> None:
        # Flights inherited by fork are led by threads that do not exist here.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._flights.clear()

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self._lock = threading.Lock()


_files: dict[Path, tuple[int, int]] = {}
_files_lock: Final = forks.Lock()


def _open(path: Path) -> int:
    # Closing any descriptor of the file would end all leases of the process, so it is opened once and never closed;
    # and once more where somebody took it away, because others lock what stands there now.
    with _files_lock:
        file, inode = _files.get(path, (-1, -1))
        if file < 0 or _inode(path) != inode:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            _files[path] = file, os.fstat(file).st_ino
        return file


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


class Leases:
    """Leases of one cache directory; `path` is the lock file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self, digest: bytes) -> bool:
        """Whether nobody else on this machine holds the lease; never waits."""
        if not has_locks():
            return True
        try:
            file = _open(self._path)
        except OSError:
            # Who may not open the file cannot be told that somebody holds it: without leases everybody leads.
            return True
        try:
            lock_byte(file, _offset(digest))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def release(self, digest: bytes) -> None:
        if not has_locks():
            return
        try:
            unlock_byte(_open(self._path), _offset(digest))
        except OSError:
            return


def _offset(digest: bytes) -> int:
    return int.from_bytes(digest[:7], "big")


S = TypeVar("S")


class UnderWay(Generic[S]):
    """The streams under way. An event loop's are its own: what it opened, nobody else can read from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[bytes, int], S] = {}

    def join(self, digest: bytes, loop: int, make: Callable[[], S]) -> S:
        """The stream under way, or a new one; the caller has a seat in it."""
        with self._lock:
            stream: Any = self._running.get((digest, loop))
            if stream is None or not stream.join():
                stream = make()
                stream.join()
                self._running.setdefault((digest, loop), stream)
            return stream  # type: ignore[no-any-return]

    def leave(self, stream: S) -> None:
        """The stream is over: who comes now begins another one."""
        with self._lock:
            for place, running in list(self._running.items()):
                if running is stream:
                    del self._running[place]

    def renew_after_fork(self) -> None:
        """The parent's streams go on in the parent."""
        self._lock = threading.Lock()
        self._running = {}
