"""A call of a model's server on its way: whole, or as a stream.

Of a stream the first piece is the SDK's own stream, and the others are what it read from the wire: so whoever follows it
gets a stream of the same kind.

One call of a model's server: what is wanted, what is known of it, and when its endpoint may be asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from cachekit.cache.default import ROOT
from cachekit.calls.answers.replies import Live
from cachekit.calls.lanes import Lane, Nearby, remember
from cachekit.calls.prepare import Prepared, aperform, perform
from cachekit.calls.streams import streaming
from cachekit.calls.streams.streaming import Pieces
from cachekit.model import MISS, Adapter, Event, Reply
from cachekit.plan import plan as plans


class Wanted(NamedTuple):
    """How this caller wants the answer. `streamed`: None for "as it was". `context` is the adapter's own (a client).

    `scope` names the endpoint and tenant whose rate limit the call counts against; `sampled` says that the server may
    answer the same question differently.
    """

    streamed: bool | None = None
    context: Any = None
    scope: str = ""
    sampled: bool = False


class Ask(NamedTuple):
    """One call on its way: the lane it came by, what it is, what is wanted, and what the lane would look up for it."""

    lane: Lane
    prepared: Prepared
    wanted: Wanted
    arguments: bytes | None
    seen: list[Nearby]

    @property
    def adapter(self) -> Adapter:
        return adapter_of(self.lane)

    def near(self) -> Any:
        """The SDK's value of what memory or disk has, or MISS. Who looked and found nothing does not look again."""
        if self.looked:
            return MISS
        found = self.prepared.nearby()
        if type(found) is Nearby:
            self.seen.append(found)
        return self.restored(found) if type(found) is Reply else MISS

    @property
    def looked(self) -> bool:
        """Whether the near tiers were read, and have no record."""
        return self.seen[-1:] == [Nearby.NOTHING]

    def restored(self, reply: Reply) -> Any:
        value = restored(self.lane, reply, self.wanted)
        if value is MISS:
            # Another machine's SDK may well rebuild it: its hits go on.
            self.prepared.cache.forget(self.prepared.key)
        return value

    def done(self, value: Any) -> Any:
        if self.arguments is not None:
            remember(self.prepared.cache, self.lane, self.arguments, self.prepared.key)
        return value

    def live(self, value: Any) -> Live:
        if self.adapter.streams(value):
            return Live(value, None, streaming=True)
        return Live(value, self.adapter.capture(value))

    def pieces(self) -> Pieces:
        made: dict[int, Reply] = {}

        def finish(log: list[tuple[int, Any]]) -> Reply:
            assert self.adapter.finish is not None
            # Asked twice where the SDK stops at the last chunk: is the stream whole, and what is to be stored.
            if len(log) not in made:
                reply = self.adapter.finish(b"".join([piece for _, piece in log[1:]]))
                made[len(log)] = replace(reply, pieces=tuple((at, len(piece)) for at, piece in log[1:]))
            return made[len(log)]

        def whole(log: list[tuple[int, Any]]) -> bool:
            return len(log) > 1 and not self.adapter.judge(finish(log))

        return Pieces(lambda value, at: (at, value), lambda piece: piece[1], finish, whole)


def adapter_of(lane: Lane) -> Adapter:
    adapter = lane.target.policy.adapter
    assert adapter is not None
    return adapter


def restored(lane: Lane, reply: Reply, wanted: Wanted) -> Any:
    streamed = reply.kind == "stream" if wanted.streamed is None else wanted.streamed
    try:
        return adapter_of(lane).restore(reply, streamed, wanted.context)
    except Exception as error:  # an entry that this SDK cannot rebuild is a miss, and is told
        ROOT.cache().tell(Event("error", lane.target.name, "adapter", type(error).__name__, error=error))
        return MISS


def heeding(origin: Callable[[], Any], scope: str) -> Any:
    """Asks the origin when its endpoint may be asked, and notes when it may be asked again."""
    cooldowns = ROOT.cache().cooldowns
    cooldowns.wait(scope)
    try:
        return origin()
    except Exception as error:  # raised again: only what it says of the next attempt is noted
        cooldowns.heed(scope, error)
        raise


async def aheeding(origin: Callable[[], Awaitable[Any]], scope: str) -> Any:
    cooldowns = ROOT.cache().cooldowns
    await cooldowns.await_(scope)
    try:
        return await origin()
    except Exception as error:  # raised again: only what it says of the next attempt is noted
        cooldowns.heed(scope, error)
        raise


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
