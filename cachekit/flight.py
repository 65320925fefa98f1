"""Single flight inside a process: one caller per key does the work, threads and tasks alike wait for its record.

A leader that raises gives its exception to everybody who waits. A leader that was cancelled (or interrupted) hands
over: one of those who wait leads next. A call that joins a flight which its own context already leads is re-entrant and
goes alone, because waiting for itself would never end.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final

from cachekit.model import Record
from cachekit.steps import ALONE, BUSY, LEAD, Standing

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
