"""One stream, many readers: whoever is ahead pulls the next piece from the source, the others find it in the log.

There is no leader that could fail the rest: a reader that walks away leaves the source to whoever reads on, and the
last one to go closes it. No thread and no task waits for it meanwhile. A reader always begins at the first piece.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from cachekit.calls.streams.log import Abandoned, Begun, Clock, Ended, Log, Pieces, Retried
from cachekit.files import forks
from cachekit.model import MISS
from cachekit.plan.loops import trio
from cachekit.plan.waiting import STEADY, outlast, waiting


def _noted(piece: Any) -> Any:
    return piece


class Followed:
    """A source read by threads. Whoever gets True from `join` must exhaust or close one `read`."""

    def __init__(self, pieces: Pieces, retried: Retried, ended: Ended, patience: float = math.inf) -> None:
        self._kind, self._retried, self._ended, self._patience = pieces, retried, ended, patience
        self._clock = Clock()
        self._source = self._made()
        self._log = Log()
        self._condition = threading.Condition()
        self._puller = 0
        forks.enrol(self)

    @property
    def over(self) -> bool:
        return self._log.over

    @property
    def too_long(self) -> bool:
        """Whether it was more than is held, so that it cannot be kept."""
        return self._log.forgotten > 0

    def join(self) -> bool:
        """Takes a seat; False where there is none to be had."""
        with self._condition:
            return self._log.sit()

    def begin(self) -> Begun | None:
        """The stream as one reader gets it; None where its puller was interrupted."""
        pieces = self.read(self._kind.give)
        try:
            return Begun(next(pieces), pieces)
        except StopIteration:
            return Begun(MISS, pieces)
        except Abandoned:
            return None

    def all(self) -> list[Any]:
        """Every piece as it was noted."""
        return list(self.read(_noted))

    def read(self, give: Callable[[Any], Any]) -> Iterator[Any]:
        """The pieces from the first. Raises what the source raises; where its reader was interrupted, what `fail` says."""
        place, log = 0, self._log
        try:
            if isinstance(log.error, Abandoned):
                raise log.error
            while self._reach(place):
                yield give(log.pieces[place])
                place += 1
            if log.error is not None:
                raise log.fail(place)
        finally:
            self._leave()

    def renew_after_fork(self) -> None:
        """What another thread pulls never comes here, and its source is the parent's: such a stream is over."""
        self._condition = threading.Condition()
        if self._puller not in (0, threading.get_ident()):
            self._log.end(Abandoned())

    def _made(self) -> Iterator[Any]:
        values, first = self._retried(self._first)()
        try:
            for value in itertools.chain(first, values):
                yield self._kind.note(value, self._clock.passed())
        finally:
            # Also where nothing was read of it: the connection is open since the stream is.
            values.close()

    def _first(self) -> tuple[Any, list[Any]]:
        # A generator fails when it is asked for its first value, not when it is made, and a retry must see it.
        head = [] if self._kind.open is None else [self._kind.open()]
        values = self._kind.read(*head)
        return values, head or list(itertools.islice(values, 1))

    def _reach(self, place: int) -> bool:
        """Waits until there is a piece at `place`, pulling it if nobody else does; False at the end."""
        log = self._log
        with self._condition:
            while self._awaits(place):
                if outlast(log.work, functools.partial(self._moved, place), self._patience) != "done":
                    raise log.fail(place)
            if place < len(log.pieces) or log.over:
                return place < len(log.pieces)
            self._puller = threading.get_ident()
        self._pull()
        return place < len(log.pieces)

    def _awaits(self, place: int) -> bool:
        return place >= len(self._log.pieces) and not self._log.over and self._puller != 0

    def _moved(self, place: int, seconds: float) -> bool:
        return self._condition.wait_for(lambda: not self._awaits(place), seconds)

    def _pull(self) -> None:
        try:
            with self._log.pulled():
                piece = next(self._source)
            self._log.pieces.append(piece)
            self._log.size += self._kind.size(piece)
        except StopIteration:
            self._end(None)
        except Exception as raised:  # the source's own, for every reader: it is raised again in `read`
            self._end(raised)
        except BaseException:
            self._end(Abandoned())
            raise
        finally:
            with self._condition:
                self._puller = 0
                self._log.lighten()
                self._condition.notify_all()

    def _end(self, error: BaseException | None) -> None:
        if not self._log.over:
            self._ended(self._log.pieces, self._clock, error)
            self._log.end(error)

    def _leave(self) -> None:
        with self._condition:
            self._log.readers -= 1
            last = not self._log.readers and self._log.end(Abandoned())
        if last:
            self._source.close()  # type: ignore[attr-defined]
            self._ended(self._log.pieces, self._clock, Abandoned())


class AsyncFollowed:
    """A source read by tasks of one event loop.

    A task that is alone pulls for itself; with company each piece is pulled by a task of its own, so that a reader who
    is cancelled takes nothing from the others. Who joins while somebody pulls for itself waits for that piece before
    it delivers any: should the puller be cancelled, it can still begin again elsewhere.
    """

    def __init__(self, pieces: Pieces, retried: Retried, ended: Ended, patience: float = math.inf) -> None:
        self._kind, self._retried, self._ended, self._patience = pieces, retried, ended, patience
        self._clock = Clock()
        self._source = self._made()
        self._log = Log()
        self._pull: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        return self._log.over

    @property
    def too_long(self) -> bool:
        """Whether it was more than is held, so that it cannot be kept."""
        return self._log.forgotten > 0

    def join(self) -> bool:
        """Takes a seat; False where there is none to be had."""
        return self._log.sit()

    async def begin(self) -> Begun | None:
        """The stream as one reader gets it; None where its puller was cancelled."""
        pieces = self.read(self._kind.give)
        try:
            return Begun(await pieces.__anext__(), pieces)
        except StopAsyncIteration:
            return Begun(MISS, pieces)
        except Abandoned:
            return None

    async def all(self) -> list[Any]:
        """Every piece as it was noted."""
        return [piece async for piece in self.read(_noted)]

    async def read(self, give: Callable[[Any], Any]) -> AsyncIterator[Any]:
        """As for threads."""
        place, log = 0, self._log
        try:
            if self._pull is not None:
                await self._follow(self._pull, place)
            if isinstance(log.error, Abandoned):
                raise log.error
            while await self._reach(place):
                yield give(log.pieces[place])
                place += 1
            if log.error is not None:
                raise log.fail(place)
        finally:
            await self._leave()

    async def _made(self) -> AsyncIterator[Any]:
        values, first = await self._retried(self._first)()
        try:
            for value in first:
                yield self._kind.note(value, self._clock.passed())
            async for value in values:
                yield self._kind.note(value, self._clock.passed())
        finally:
            await values.aclose()

    async def _first(self) -> tuple[Any, list[Any]]:
        head = [] if self._kind.open is None else [await self._kind.open()]
        values = self._kind.read(*head)
        try:
            return values, head or [await values.__anext__()]
        except StopAsyncIteration:
            return values, []

    async def _reach(self, place: int) -> bool:
        log = self._log
        while place >= len(log.pieces) and not log.over:
            if self._pull is None:
                await self._start()
            else:
                await self._follow(self._pull, place)
        return place < len(log.pieces)

    async def _follow(self, pull: asyncio.Future[None], place: int) -> None:
        """Waits for another reader's piece."""
        limit = None if self._patience == math.inf else self._patience * STEADY
        with waiting(self._log.work) as circle:
            if circle or not (await asyncio.wait([pull], timeout=limit))[0]:
                raise self._log.fail(place)

    async def _start(self) -> None:
        if self._log.readers > 1:
            self._pull = asyncio.ensure_future(self._one())
            await asyncio.shield(self._pull)
            return
        if trio() is not None:
            await self._one()
            return
        self._pull = asyncio.get_running_loop().create_future()
        pull = self._pull
        try:
            await self._one()
        finally:
            pull.set_result(None)

    async def _one(self) -> None:
        try:
            with self._log.pulled():
                piece = await self._source.__anext__()
            self._log.pieces.append(piece)
            self._log.size += self._kind.size(piece)
            self._log.lighten()
        except StopAsyncIteration:
            await self._end(None)
        except Exception as raised:  # the source's own, for every reader: it is raised again in `read`
            await self._end(raised)
        except BaseException:
            await self._end(Abandoned())
            raise
        finally:
            self._pull = None

    async def _end(self, error: BaseException | None) -> None:
        if not self._log.over:
            await self._told(error)
            self._log.end(error)

    async def _told(self, error: BaseException | None) -> None:
        waiting: Awaitable[Any] | None = self._ended(self._log.pieces, self._clock, error)
        if waiting is not None:
            await waiting

    async def _leave(self) -> None:
        self._log.readers -= 1
        if self._log.readers or not self._log.end(Abandoned()):
            return
        pull: Any = self._pull
        if pull is not None:
            pull.cancel()
            await asyncio.wait([pull])
        await self._source.aclose()  # type: ignore[attr-defined]
        await self._told(Abandoned())
