"""Who does the work: one caller of a process (Flights), and one of a stream (UnderWay).

In a process threads and tasks alike wait for the record of the one who leads. A leader that raises gives its exception to
everybody who waits. A leader that was cancelled (or interrupted) hands over: one of those who wait leads next. A call
that would wait for itself, directly or through others, goes alone. Where that cannot be told a wait has a budget; then
one of those who wait leads, beside the first.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, TimeoutError
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from cachekit.model import Record
from cachekit.plan import loops
from cachekit.plan.steps import ALONE, BUSY, LEAD, Standing
from cachekit.plan.waiting import LEADING, STEADY, Work, led, outlast, waiting


class _Handover(Enum):
    OVER = "over"


_OVER: Final = _Handover.OVER


class Flight(Work):
    """Calls under way that one answer serves: mostly one. `records` is what is known, `ended` what it landed with.

    `landing` is that for who waits, and made for the first of them: most flights nobody waits for.
    """

    __slots__ = ("digests", "ended", "landing", "records")

    def __init__(self, *digests: bytes) -> None:
        super().__init__()
        self.digests = frozenset(digests)
        self.records: dict[bytes, Record] = {}
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


def _tell(landing: Future[Any], records: Any, error: Exception | None) -> None:
    landing.set_result(records) if error is None else landing.set_exception(error)


def _brought(flight: Flight) -> Mapping[bytes, Record] | None:
    if flight.landing.exception() is not None:
        return {}
    records = flight.landing.result()
    return None if records is _OVER else records


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
            answer = {} if seen == "circle" else _OVER if seen == "late" else seat.landing.result()
            if answer is not _OVER:
                return answer.get(digest) or ALONE
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
                return answer.get(digest) or ALONE
            self._give_up(seat)

    def lead(self, digests: Iterable[bytes]) -> tuple[Flight, dict[bytes, Flight]]:
        """One flight for all that nobody has under way, which ends with `land`; and the flights of the others.

        What the caller's context leads already is in neither.
        """
        mine, theirs = led(), dict[bytes, Flight]()
        own = {digest for work in mine if isinstance(work, Flight) for digest in work.digests}
        wanted = [digest for digest in digests if digest not in own]
        with self._lock:
            self._forget_the_parents()
            theirs = {digest: self._flights[digest].awaited() for digest in wanted if digest in self._flights}
            flight = Flight(*(digest for digest in wanted if digest not in theirs))
            self._flights.update(dict.fromkeys(flight.digests, flight))
        LEADING.set((*mine, flight))
        return flight, theirs

    def follow(self, flight: Flight, patience: float) -> Mapping[bytes, Record] | None:
        """What a flight brings of what it has; None where its leader was cancelled: somebody else may lead.

        Nothing where it failed, did not land within its time, or waits for the caller: who waited goes alone.
        """
        seen = outlast(flight, flight.landed, patience)
        if seen == "late":
            self._give_up(flight)
        return _brought(flight) if seen == "done" else {}

    async def afollow(self, flight: Flight, patience: float) -> Mapping[bytes, Record] | None:
        """Like `follow`, without holding the event loop."""
        with waiting(flight) as circle:
            if circle:
                return {}
            if not await loops.done(flight.landing, patience * STEADY):
                self._give_up(flight)
                return {}
        return _brought(flight)

    def land(self, flight: Flight, error: BaseException | None) -> None:
        """Who waits for a flight that the caller leads gets its records; what the caller's request raised is its own."""
        self._leave(flight)
        handed = error is not None and not isinstance(error, Exception)
        self._land(flight, _OVER if handed else flight.records)

    def share(self, digest: bytes, record: Record | None) -> None:
        """Lands: everybody who waits, or still joins before `leave`, gets `record`, or goes alone for None."""
        flight = self._led(digest)
        if flight is not None:
            self._land(flight, {} if record is None else {digest: record})

    def leave(self, digest: bytes, error: BaseException | None) -> None:
        """The leader is done; without a `share` before, `error` decides what those who wait get."""
        flight = self._led(digest)
        if flight is None:
            return
        self._leave(flight)
        self._land(flight, _OVER, error if isinstance(error, Exception) else None)

    def _land(self, flight: Flight, records: Any, error: Exception | None = None) -> None:
        with self._lock:
            if flight.ended is not None:
                return
            flight.ended, landing = (records, error), flight.landing
        if landing is not None:
            _tell(landing, records, error)

    def _leave(self, flight: Flight) -> None:
        flight.over = True
        LEADING.set(tuple(one for one in LEADING.get() if one is not flight))
        self._give_up(flight)

    def _led(self, digest: bytes) -> Flight | None:
        mine = [work for work in led() if isinstance(work, Flight) and digest in work.digests]
        return mine[-1] if mine else self._flights.get(digest)

    def _seat(self, digest: bytes, *, wait: bool) -> Flight | Standing:
        mine = led()
        if any(isinstance(work, Flight) and digest in work.digests for work in mine):
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
            for digest in flight.digests:
                if self._flights.get(digest) is flight:
                    del self._flights[digest]

    def _forget_the_parents(self) -> None:
        # Flights inherited by fork are led by threads that do not exist here.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._flights.clear()

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self._lock = threading.Lock()


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
