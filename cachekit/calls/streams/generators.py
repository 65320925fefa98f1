"""Decorated generator functions: values reach the caller as they come, and a hit replays them one by one."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from cachekit.calls.prepare import Prepared, prepare
from cachekit.calls.streams import streaming
from cachekit.calls.streams.recording import Piece, Recording
from cachekit.calls.streams.streaming import Pieces
from cachekit.calls.target import Target
from cachekit.model import MISS
from cachekit.plan.gate import Scope


def call(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """An iterator, or an async one. The key is built now; nothing is looked up before the first value is asked for."""
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return origin()
    if target.kind == "async_generator":
        return _avalues(prepared, origin)
    return _values(prepared, origin)


def refresh(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """The same, from the origin whatever is stored."""
    with Scope(mode="refresh"):
        return call(target, origin, args, kwargs)


def _values(prepared: Prepared, origin: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    found = streaming.found_or(prepared, lambda: Recording(origin()))
    if found is not MISS:
        yield from _replayed(prepared, found)
        return
    reader, begun = streaming.follow(prepared, origin, _pieces(prepared.target)), False
    try:
        for value in reader:
            begun = True
            yield value
    except Exception:  # the origin's, raised again unless something old may be served in its place
        old = MISS if begun else streaming.stale(prepared)
        if old is MISS:
            raise
        yield from _replayed(prepared, old)
    finally:
        reader.close()  # type: ignore[attr-defined]


async def _avalues(prepared: Prepared, origin: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
    async def collect() -> Recording:
        return Recording([value async for value in origin()])

    found = await streaming.afound_or(prepared, collect)
    if found is not MISS:
        async for value in _areplayed(prepared, found):
            yield value
        return
    reader, begun = streaming.afollow(prepared, origin, _pieces(prepared.target)), False
    try:
        async for value in reader:
            begun = True
            yield value
    except Exception:  # the origin's, raised again unless something old may be served in its place
        old = MISS if begun else await streaming.astale(prepared)
        if old is MISS:
            raise
        async for value in _areplayed(prepared, old):
            yield value
    finally:
        await reader.aclose()  # type: ignore[attr-defined]


def _pieces(target: Target) -> Pieces:
    codec = target.codec.values  # type: ignore[attr-defined]
    return Pieces(lambda value, at: Piece(value, at, codec), functools.partial(_taken, codec), list)


def _taken(codec: Any, piece: Piece) -> Any:
    return piece.take(codec)


def _replayed(prepared: Prepared, found: Recording) -> Iterator[Any]:
    begin = time.perf_counter_ns()
    for value, at in zip(found, found.instants, strict=True):
        ahead = _ahead(prepared, at, begin)
        if ahead:
            time.sleep(ahead)
        yield value


async def _areplayed(prepared: Prepared, found: Recording) -> AsyncIterator[Any]:
    begin = time.perf_counter_ns()
    for value, at in zip(found, found.instants, strict=True):
        ahead = _ahead(prepared, at, begin)
        if ahead:
            await asyncio.sleep(ahead)
        yield value


def _ahead(prepared: Prepared, at: int, begin: int) -> float:
    """How many seconds too early it is, where the recorded pace is wanted."""
    if prepared.target.policy.pace != "recorded":
        return 0.0
    return max(0.0, (begin + at - time.perf_counter_ns()) / 1e9)
