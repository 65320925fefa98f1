"""What readers of one stream share: what its pieces are, those that came, who reads them, and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from cachekit.errors import TierUnavailable
from cachekit.plan.waiting import LEADING, Work, led


class Abandoned(Exception):
    """The last reader left before the end, or the one who was pulling was cancelled. Never reaches a caller."""


class Begun(NamedTuple):
    """A stream that has begun: its first piece, MISS where it has none, and the others."""

    first: Any
    others: Any


class Pieces(NamedTuple):
    """What the pieces of a kind of stream are. `read` gives their iterator, of what `open` gave where the stream itself
    is opened first: that is the first piece then.

    `note` makes a piece of what came and its instant, in nanoseconds since it was asked for; `give` what one reader gets
    of it; `finish` the value to be stored; `whole` is whether an abandoned stream had come to its end all the same.
    `size` is how many bytes a noted piece takes, where many of them may be more than memory should hold.
    """

    read: Callable[..., Any]
    note: Callable[[Any, int], Any]
    give: Callable[[Any], Any]
    finish: Callable[[list[Any]], Any]
    whole: Callable[[list[Any]], bool] = lambda _log: False
    open: Callable[[], Any] | None = None
    size: Callable[[Any], int] = lambda _noted: 0


LONGEST: Final = 64 << 20
"""Bytes of a stream up to which it is held, to be stored and for others who ask meanwhile; a longer one passes by."""

Retried = Callable[[Callable[[], Any]], Callable[[], Any]]
"""Adds the retries that were asked for to a function."""


class Clock:
    """When a stream was asked for, on both clocks."""

    def __init__(self) -> None:
        self.started = time.time_ns()
        self._begin = time.perf_counter_ns()

    def passed(self) -> int:
        """Nanoseconds since then."""
        return time.perf_counter_ns() - self._begin


Ended = Callable[[list[Any], Clock, "BaseException | None"], Any]
"""Gets the log and what ended it. What it gives is awaited on an event loop, unless it is None."""


class Log:
    """The pieces so far, who reads them, and how it ended."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.readers = 0
        self.size = 0
        self.forgotten = 0
        """How many of the first pieces are not held any more; then nobody can join, and nothing is stored."""
        self.work = Work()
        self.error: BaseException | None = None

    @property
    def over(self) -> bool:
        return self.work.over

    def end(self, error: BaseException | None) -> bool:
        """Whether this was the end; there is one only."""
        first = not self.over
        if first:
            self.work.over, self.error = True, error
        return first

    def lighten(self) -> None:
        """Holds the last piece only, where all of them would be too much and their one reader has had the others."""
        if self.size > LONGEST and self.readers == 1:
            last = len(self.pieces) - 1
            self.pieces[self.forgotten : last] = [None] * (last - self.forgotten)
            self.forgotten = last

    def sit(self) -> bool:
        """Takes a seat; False where the stream is over, or the caller is what the stream waits for."""
        free = not self.over and not self.forgotten and self.work not in LEADING.get()
        self.readers += free
        return free

    @contextmanager
    def pulled(self) -> Iterator[None]:
        """Marks what happens inside as the making of a piece: a call in there that joined would wait for itself."""
        self.work.thread = threading.get_ident()
        token = LEADING.set((*led(), self.work))
        try:
            yield
        finally:
            LEADING.reset(token)

    def fail(self, place: int) -> BaseException:
        """What a reader is told who has had `place` pieces, and gets no others."""
        if not isinstance(self.error, (Abandoned, type(None))):
            return self.error
        if not place:
            return Abandoned()
        return TierUnavailable(
            "the stream that this one shared with another reader stands still or ended with it; ask again"
        )
