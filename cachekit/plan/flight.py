"""Who does the work: one caller of a process (Flights), one process of a machine (Leases), one stream (UnderWay).

In a process threads and tasks alike wait for the record of the one who leads. A leader that raises gives its exception to
everybody who waits. A leader that was cancelled (or interrupted) hands over: one of those who wait leads next. A call
that would wait for itself, directly or through others, goes alone. Where that cannot be told a wait has a budget; then
one of those who wait leads, beside the first.

A lease is a kernel lock on one byte of a file. The byte's offset comes from the key, so that one open file serves every
key. The kernel ends a lease in the instant its holder dies, whatever killed it, so there is nothing to renew and no flag
that could be left behind; POSIX record locks are not inherited by fork. They do not exclude the threads of one process:
a flight does that. A lease saves work and nothing depends on it: where locks are missing (Windows, some network
drives), everybody leads.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from enum import Enum
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from cachekit.files import forks
from cachekit.files.locks import has_locks, holder_of_byte, lock_byte, unlock_byte
from cachekit.model import Record
from cachekit.plan import loops
from cachekit.plan.steps import ALONE, BUSY, LEAD, Standing
from cachekit.plan.waiting import LEADING, STEADY, Work, is_ancestor, led, outlast, waiting


class _Handover(Enum):
    OVER = "over"


_OVER: Final = _Handover.OVER


class Flight(Work):
    """One call under way. `ended` is the record or the exception that it landed with.

    `landing` is that for who waits, and made for the first of them: most flights nobody waits for.
    """

    __slots__ = ("digest", "ended", "landing")

    def __init__(self, digest: bytes) -> None:
        super().__init__()
        self.digest = digest
        self.ended: tuple[Any, Exception | None] | None = None
        self.landing: Any = None

    def awaited(self) -> Flight:
        """With a landing. Under the lock of the flights, as is every change of `ended`."""
        if self.landing is None:
            self.landing = Future()
            # Running from the start: else cancelling one follower would cancel the flight for everybody.
            self.landing.set_running_or_notify_cancel()
            if self.ended is not None:
                _tell(self.landing, *self.ended)
        return self

    def landed(self, seconds: float) -> bool:
        """Waits until it is known what becomes of it."""
        try:
            self.landing.exception(seconds)
        except TimeoutError:
            return bool(self.landing.done())
        return True


def _tell(landing: Future[Any], record: Any, error: Exception | None) -> None:
    landing.set_result(record) if error is None else landing.set_exception(error)


class Flights:
    """The flights under way, by key digest. `took` is how many seconds each function's origin took last time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[bytes, Flight] = {}
        self._pid = os.getpid()
        self.took: dict[str, float] = {}

    def join(self, digest: bytes, *, wait: bool = True, patience: float = math.inf) -> Record | Standing:
        """LEAD, ALONE, BUSY (only with `wait=False`), or the leader's record; raises the leader's exception.

        LEAD as well where the leader did not land within its time; ALONE where it waits for the caller.
        """
        while True:
            seat = self._seat(digest, wait=wait)
            if isinstance(seat, Standing):
                return seat
            seen = outlast(seat, seat.landed, patience)
            answer = None if seen == "circle" else _OVER if seen == "late" else seat.landing.result()
            if answer is not _OVER:
                return answer or ALONE
            self._give_up(seat)

    async def ajoin(self, digest: bytes, *, wait: bool = True, patience: float = math.inf) -> Record | Standing:
        """Like `join`, without holding the event loop."""
        while True:
            seat = self._seat(digest, wait=wait)
            if isinstance(seat, Standing):
                return seat
            with waiting(seat) as circle:
                if circle:
                    return ALONE
                answer = seat.landing.result() if await loops.done(seat.landing, patience * STEADY) else _OVER
            if answer is not _OVER:
                return answer or ALONE
            self._give_up(seat)

    def share(self, digest: bytes, record: Record | None) -> None:
        """Lands: everybody who waits, or still joins before `leave`, gets `record`, or goes alone for None."""
        flight = self._led(digest)
        if flight is not None:
            self._land(flight, record)

    def leave(self, digest: bytes, error: BaseException | None) -> None:
        """The leader is done; without a `share` before, `error` decides what those who wait get."""
        flight = self._led(digest)
        if flight is None:
            return
        flight.over = True
        LEADING.set(tuple(one for one in LEADING.get() if one is not flight))
        self._give_up(flight)
        self._land(flight, _OVER, error if isinstance(error, Exception) else None)

    def _land(self, flight: Flight, record: Any, error: Exception | None = None) -> None:
        with self._lock:
            if flight.ended is not None:
                return
            flight.ended, landing = (record, error), flight.landing
        if landing is not None:
            _tell(landing, record, error)

    def _led(self, digest: bytes) -> Flight | None:
        mine = [work for work in led() if isinstance(work, Flight) and work.digest == digest]
        return mine[-1] if mine else self._flights.get(digest)

    def _seat(self, digest: bytes, *, wait: bool) -> Flight | Standing:
        mine = led()
        if any(isinstance(work, Flight) and work.digest == digest for work in mine):
            return ALONE
        with self._lock:
            self._forget_the_parents()
            flight = self._flights.get(digest)
            if flight is not None:
                return flight.awaited() if wait else BUSY
            flight = self._flights[digest] = Flight(digest)
        LEADING.set((*mine, flight))
        return LEAD

    def _give_up(self, flight: Flight) -> None:
        """Who comes now does not wait for this one."""
        with self._lock:
            if self._flights.get(flight.digest) is flight:
                del self._flights[flight.digest]

    def _forget_the_parents(self) -> None:
        # Flights inherited by fork are led by threads that do not exist here.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._flights.clear()

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self._lock = threading.Lock()


_files: dict[str, tuple[int, int]] = {}
_files_lock: Final = forks.Lock()


def _open(path: str) -> int:
    # Closing any descriptor of the file would end all leases of the process, so it is opened once and never closed;
    # and once more where somebody took it away, because others lock what stands there now.
    file, inode = _files.get(path, (-1, -1))
    if file >= 0 and _inode(path) == inode:
        return file
    with _files_lock:
        if _files.get(path, (-1, -1)) == (file, inode):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            _files[path] = file, os.fstat(file).st_ino
        return _files[path][0]


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


class Leases:
    """Leases of one cache directory; `path` is the lock file."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)  # looked at by every miss, and a Path is slow to look at

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

    def of_a_parent(self, digest: bytes) -> bool:
        """Whether a process holds the lease that started this one, and so may wait for it."""
        try:
            return is_ancestor(holder_of_byte(_open(self._path), _offset(digest)))
        except OSError:
            return False

    def release(self, digest: bytes) -> None:
        # In the file that it was taken in: nobody looks at one that was taken away.
        file, _ = _files.get(self._path, (-1, -1))
        if file < 0 or not has_locks():
            return
        try:
            unlock_byte(file, _offset(digest))
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
