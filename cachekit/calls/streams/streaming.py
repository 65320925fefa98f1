"""Calls whose answer comes in pieces: pieces reach the caller as they come, and are kept once the last one came.

The same for generator functions and for an SDK's streams; `Pieces` says what a piece is. Nobody waits for another
process here: a lease would hold the first piece back until the other's last.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

from cachekit.calls.prepare import Prepared, aperform, aretried, nothing, perform, retried
from cachekit.calls.streams.following import Abandoned, AsyncShared, Shared
from cachekit.model import MISS, Event
from cachekit.plan import plan as plans


class Pieces(NamedTuple):
    """`note` makes a piece of what came and its instant in nanoseconds; `give` what one reader gets of it; `finish` the
    value to be stored; `whole` is whether an abandoned stream had come to its end all the same.
    """

    note: Callable[[Any, int], Any]
    give: Callable[[Any], Any]
    finish: Callable[[list[Any]], Any]
    whole: Callable[[list[Any]], bool] = lambda _pieces: False


def follow(prepared: Prepared, origin: Callable[[], Iterator[Any]], pieces: Pieces) -> Iterator[Any]:
    """The pieces of a call that no tier answers, together with everybody else who wants them now."""
    streams, digest = prepared.cache.streams, prepared.key.digest
    while True:
        shared: Shared[Any] = streams.join(digest, 0, lambda: _shared(prepared, origin, pieces))
        reader, begun = shared.read(), False
        try:
            for piece in reader:
                begun = True
                yield pieces.give(piece)
            return
        except Abandoned:
            if begun:
                raise
        finally:
            reader.close()  # type: ignore[attr-defined]


async def afollow(prepared: Prepared, origin: Callable[[], AsyncIterator[Any]], pieces: Pieces) -> AsyncIterator[Any]:
    streams, digest = prepared.cache.streams, prepared.key.digest
    loop = id(asyncio.get_running_loop())
    while True:
        shared: AsyncShared[Any] = streams.join(digest, loop, lambda: _ashared(prepared, origin, pieces))
        reader, begun = shared.read(), False
        try:
            async for piece in reader:
                begun = True
                yield pieces.give(piece)
            return
        except Abandoned:
            if begun:
                raise
        finally:
            await reader.aclose()  # type: ignore[attr-defined]


def alone(prepared: Prepared, origin: Callable[[], Iterator[Any]], pieces: Pieces) -> Iterator[Any]:
    """A stream that came where none was expected: kept like any other, with nobody to follow it."""
    shared = _shared(prepared, origin, pieces)
    shared.join()
    return (pieces.give(piece) for piece in shared.read())


async def aalone(prepared: Prepared, origin: Callable[[], AsyncIterator[Any]], pieces: Pieces) -> AsyncIterator[Any]:
    shared = _ashared(prepared, origin, pieces)
    shared.join()
    async for piece in shared.read():
        yield pieces.give(piece)


class _Clock:
    """When a stream was asked for, on both clocks."""

    def __init__(self) -> None:
        self.started = time.time_ns()
        self._begin = time.perf_counter_ns()

    def passed(self) -> int:
        return time.perf_counter_ns() - self._begin


def _shared(prepared: Prepared, origin: Callable[[], Iterator[Any]], pieces: Pieces) -> Shared[Any]:
    clock = _Clock()

    def source() -> Iterator[Any]:
        values, first = retried(prepared.target, lambda: _opened(origin))()
        try:
            for value in itertools.chain(first, values):
                yield pieces.note(value, clock.passed())
        finally:
            getattr(values, "close", _nothing)()

    def ended(log: list[Any], error: BaseException | None) -> None:
        prepared.cache.streams.leave(shared)
        if not _spoiled(prepared, pieces, log, error):
            perform(prepared, _settling(prepared, pieces, log, clock), nothing, announce=True)

    shared: Shared[Any] = Shared(source(), ended)
    return shared


def _opened(origin: Callable[[], Iterator[Any]]) -> tuple[Iterator[Any], list[Any]]:
    # With its first value: a generator fails when it is asked for one, not when it is made, and a retry must see it.
    values = iter(origin())
    return values, list(itertools.islice(values, 1))


def _ashared(prepared: Prepared, origin: Callable[[], AsyncIterator[Any]], pieces: Pieces) -> AsyncShared[Any]:
    clock = _Clock()

    async def source() -> AsyncIterator[Any]:
        values, first = await aretried(prepared.target, lambda: _aopened(origin))()
        try:
            for value in first:
                yield pieces.note(value, clock.passed())
            async for value in values:
                yield pieces.note(value, clock.passed())
        finally:
            await getattr(values, "aclose", _anothing)()

    async def ended(log: list[Any], error: BaseException | None) -> None:
        prepared.cache.streams.leave(shared)
        if not _spoiled(prepared, pieces, log, error):
            await aperform(prepared, _settling(prepared, pieces, log, clock), nothing, announce=True)

    shared: AsyncShared[Any] = AsyncShared(source(), ended)
    return shared


async def _aopened(origin: Callable[[], AsyncIterator[Any]]) -> tuple[AsyncIterator[Any], list[Any]]:
    values = origin().__aiter__()
    try:
        return values, [await values.__anext__()]
    except StopAsyncIteration:
        return values, []


def _nothing() -> None:
    return None


async def _anothing() -> None:
    return None


def _settling(prepared: Prepared, pieces: Pieces, log: list[Any], clock: _Clock) -> Any:
    return plans.settle(prepared.request, pieces.finish(log), clock.started, clock.passed() / 1e9)


def _spoiled(prepared: Prepared, pieces: Pieces, log: list[Any], error: BaseException | None) -> bool:
    if error is None or (isinstance(error, Abandoned) and pieces.whole(log)):
        return False
    reason = "aborted" if isinstance(error, Abandoned) else "origin_failed"
    prepared.cache.tell(Event("skipped", prepared.target.name, reason=reason))
    return True


def found_or(prepared: Prepared, collect: Callable[[], Any]) -> Any:
    """The stored value or MISS; `collect` asks the origin for a whole one, for a refresh in the background."""
    return perform(prepared, plans.find(prepared.request), collect)


async def afound_or(prepared: Prepared, collect: Callable[[], Any]) -> Any:
    return await aperform(prepared, plans.find(prepared.request), collect)


def stale(prepared: Prepared) -> Any:
    """What may be served although the origin failed, or MISS."""
    if not prepared.target.policy.stale_if_error:
        return MISS
    return perform(prepared, plans.fallback(prepared.request), nothing)


async def astale(prepared: Prepared) -> Any:
    if not prepared.target.policy.stale_if_error:
        return MISS
    return await aperform(prepared, plans.fallback(prepared.request), nothing)
