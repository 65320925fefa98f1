"""A call of a model's server on its way: whole, or as a stream.

Of a stream the first piece is the SDK's own stream, and the others are what it read from the wire: so whoever follows it
gets a stream of the same kind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from cachekit import streaming
from cachekit.asking import Ask
from cachekit.model import MISS, Reply
from cachekit.perform import aperform, perform
from cachekit.plan import plan as plans
from cachekit.replies import Live

# -- whole answers --------------------------------------------------------------------------------------------------


def whole(ask: Ask, origin: Callable[[], Any]) -> Any:
    found = perform(ask.prepared, plans.plan(ask.prepared.request, looked=ask.looked), lambda: ask.live(origin()))
    if type(found) is Reply:
        value = ask.restored(found)
        return origin() if value is MISS else value
    if not found.streaming:
        return found.value
    return _retold(ask, streaming.alone(ask.prepared, lambda: _headed(ask, lambda: found.value), ask.pieces()))


async def awhole(ask: Ask, origin: Callable[[], Awaitable[Any]]) -> Any:
    async def asked() -> Live:
        return ask.live(await origin())

    async def same() -> Any:
        return found.value

    found = await aperform(ask.prepared, plans.plan(ask.prepared.request, looked=ask.looked), asked)
    if type(found) is Reply:
        value = ask.restored(found)
        return await origin() if value is MISS else value
    if not found.streaming:
        return found.value
    return await _aretold(ask, streaming.aalone(ask.prepared, lambda: _aheaded(ask, same), ask.pieces()))


# -- streams: the first piece is the SDK's own stream, the others are what it read from the wire -----------------------


def stream(ask: Ask, origin: Callable[[], Any]) -> Any:
    found = streaming.found_or(ask.prepared, lambda: _collected(ask, origin()))
    if type(found) is Reply and (value := ask.restored(found)) is not MISS:
        return value
    try:
        return _retold(ask, streaming.follow(ask.prepared, lambda: _headed(ask, origin), ask.pieces()))
    except Exception:  # the SDK's own, raised again unless something old may be served in its place
        old = streaming.stale(ask.prepared)
        if type(old) is not Reply:
            raise
        return ask.restored(old)


async def astream(ask: Ask, origin: Callable[[], Awaitable[Any]]) -> Any:
    async def collected() -> Live:
        return await _acollected(ask, await origin())

    found = await streaming.afound_or(ask.prepared, collected)
    if type(found) is Reply and (value := ask.restored(found)) is not MISS:
        return value
    try:
        return await _aretold(ask, streaming.afollow(ask.prepared, lambda: _aheaded(ask, origin), ask.pieces()))
    except Exception:  # the SDK's own, raised again unless something old may be served in its place
        old = await streaming.astale(ask.prepared)
        if type(old) is not Reply:
            raise
        return ask.restored(old)


def _headed(ask: Ask, origin: Callable[[], Any]) -> Iterator[Any]:
    stream = origin()
    source = ask.adapter.source(stream)
    try:
        yield stream
        yield from source
    finally:
        # Also where nothing was read of it: the connection is open since the stream is.
        source.close()


async def _aheaded(ask: Ask, origin: Callable[[], Awaitable[Any]]) -> AsyncIterator[Any]:
    stream = await origin()
    source = ask.adapter.source(stream)
    try:
        yield stream
        async for piece in source:
            yield piece
    finally:
        await source.aclose()


def _collected(ask: Ask, stream: Any) -> Live:
    """The whole stream at once, for a refresh in the background that nobody reads."""
    source = ask.adapter.source(stream)
    try:
        return _finished(ask, b"".join(source))
    finally:
        source.close()


async def _acollected(ask: Ask, stream: Any) -> Live:
    source = ask.adapter.source(stream)
    try:
        return _finished(ask, b"".join([piece async for piece in source]))
    finally:
        await source.aclose()


def _finished(ask: Ask, data: bytes) -> Live:
    assert ask.adapter.finish is not None
    return Live(None, ask.adapter.finish(data))


def _retold(ask: Ask, pieces: Iterator[Any]) -> Any:
    return ask.adapter.retold(next(pieces), pieces)


async def _aretold(ask: Ask, pieces: AsyncIterator[Any]) -> Any:
    return ask.adapter.retold(await pieces.__anext__(), pieces)
