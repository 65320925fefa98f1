"""What readers of one stream share: what its pieces are, those that came, who reads them, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

_pulling: ContextVar[frozenset[int]] = ContextVar("cachekit_pulling", default=frozenset())


class Abandoned(Exception):
    """The last reader left before the end, or the one who was pulling was cancelled."""


class Begun(NamedTuple):
    """A stream that has begun: its first piece, MISS where it has none, and the others."""

    first: Any
    others: Any


class Pieces(NamedTuple):
    """What the pieces of a kind of stream are. `read` gives their iterator, of what `open` gave where the stream itself
    is opened first: that is the first piece then.

    `note` makes a piece of what came and its instant, in nanoseconds since it was asked for; `give` what one reader gets
    of it; `finish` the value to be stored; `whole` is whether an abandoned stream had come to its end all the same.
    """

    read: Callable[..., Any]
    note: Callable[[Any, int], Any]
    give: Callable[[Any], Any]
    finish: Callable[[list[Any]], Any]
    whole: Callable[[list[Any]], bool] = lambda _log: False
    open: Callable[[], Any] | None = None


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
        self.over = False
        self.error: BaseException | None = None

    def end(self, error: BaseException | None) -> bool:
        """Whether this was the end; there is one only."""
        first = not self.over
        if first:
            self.over, self.error = True, error
        return first

    def sit(self) -> bool:
        """Takes a seat; False where the stream is over, or the caller is what the stream waits for."""
        free = not self.over and id(self) not in _pulling.get()
        self.readers += free
        return free

    @contextmanager
    def pulled(self) -> Iterator[None]:
        """Marks what happens inside as the making of a piece: a call in there that joined would wait for itself."""
        token = _pulling.set(_pulling.get() | {id(self)})
        try:
            yield
        finally:
            _pulling.reset(token)
