"""One stream, many readers: whoever is ahead pulls the next piece from the source, the others find it in the log.

There is no leader that could fail the rest: a reader that walks away leaves the source to whoever reads on, and the
last one to go closes it. No thread and no task waits for it meanwhile. A reader always begins at the first piece.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_pulling: ContextVar[frozenset[int]] = ContextVar("cachekit_pulling", default=frozenset())


class Abandoned(Exception):
    """The last reader left before the end, or the one who was pulling was cancelled."""


class Log(Generic[T]):
    """The pieces so far, who reads them, and how it ended."""

    def __init__(self) -> None:
        self.pieces: list[T] = []
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


class Shared(Generic[T]):
    """A source read by threads. Whoever gets True from `join` must exhaust or close one `read`."""

    def __init__(self, source: Iterator[T], ended: Callable[[list[T], BaseException | None], None]) -> None:
        self._source = source
        self._ended = ended
        self._log: Log[T] = Log()
        self._condition = threading.Condition()
        self._pulling = False

    def join(self) -> bool:
        """Takes a seat; False where there is none to be had."""
        with self._condition:
            return self._log.sit()

    def read(self) -> Iterator[T]:
        """The pieces from the first. Raises what the source raises; Abandoned where its reader was interrupted."""
        place, log = 0, self._log
        try:
            while self._reach(place):
                yield log.pieces[place]
                place += 1
            if log.error is not None:
                raise log.error
        finally:
            self._leave()

    def _reach(self, place: int) -> bool:
        """Waits until there is a piece at `place`, pulling it if nobody else does; False at the end."""
        log = self._log
        with self._condition:
            while place >= len(log.pieces) and not log.over and self._pulling:
                self._condition.wait()
            if place < len(log.pieces) or log.over:
                return place < len(log.pieces)
            self._pulling = True
        self._pull()
        return place < len(log.pieces)

    def _pull(self) -> None:
        try:
            with self._log.pulled():
                piece = next(self._source)
            self._log.pieces.append(piece)
        except StopIteration:
            self._end(None)
        except Exception as raised:  # the source's own, for every reader: it is raised again in `read`
            self._end(raised)
        except BaseException:
            self._end(Abandoned())
            raise
        finally:
            with self._condition:
                self._pulling = False
                self._condition.notify_all()

    def _end(self, error: BaseException | None) -> None:
        if not self._log.over:
            self._ended(self._log.pieces, error)
            self._log.end(error)

    def _leave(self) -> None:
        with self._condition:
            self._log.readers -= 1
            last = not self._log.readers and self._log.end(Abandoned())
        if last:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
            self._ended(self._log.pieces, Abandoned())


class AsyncShared(Generic[T]):
    """A source read by tasks of one event loop.

    A task that is alone pulls for itself; with company each piece is pulled by a task of its own, so that a reader who
    is cancelled takes nothing from the others. Who joins while somebody pulls for itself waits for that piece before
    it delivers any: should the puller be cancelled, it can still begin again elsewhere.
    """

    def __init__(
        self, source: AsyncIterator[T], ended: Callable[[list[T], BaseException | None], Awaitable[None]]
    ) -> None:
        self._source = source
        self._ended = ended
        self._log: Log[T] = Log()
        self._pull: asyncio.Future[None] | None = None

    def join(self) -> bool:
        """Takes a seat; False where there is none to be had."""
        return self._log.sit()

    async def read(self) -> AsyncIterator[T]:
        """The pieces from the first. Raises what the source raises, or Abandoned."""
        place, log = 0, self._log
        try:
            if self._pull is not None:
                await asyncio.shield(self._pull)
            while await self._reach(place):
                yield log.pieces[place]
                place += 1
            if log.error is not None:
                raise log.error
        finally:
            await self._leave()

    async def _reach(self, place: int) -> bool:
        log = self._log
        while place >= len(log.pieces) and not log.over:
            if self._pull is None:
                await self._start()
            else:
                await asyncio.shield(self._pull)
        return place < len(log.pieces)

    async def _start(self) -> None:
        if self._log.readers > 1:
            self._pull = asyncio.ensure_future(self._one())
            await asyncio.shield(self._pull)
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
            await self._ended(self._log.pieces, error)
            self._log.end(error)

    async def _leave(self) -> None:
        self._log.readers -= 1
        if self._log.readers or not self._log.end(Abandoned()):
            return
        pull: Any = self._pull
        if pull is not None:
            pull.cancel()
            await asyncio.wait([pull])
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()
        await self._ended(self._log.pieces, Abandoned())
