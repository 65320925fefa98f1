"""Calls of a model's server: the answer is kept as it was on the wire, and comes back as the SDK's own value.

Decided here is what only such a call has: may the answer be kept at all (a sampled one differs each time), is it wanted
as a stream, and how does a stored one become the SDK's value again. All the rest is the common path of a call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from cachekit import plan as plans
from cachekit import streaming
from cachekit.default import ROOT
from cachekit.errors import UsageError
from cachekit.gate import current
from cachekit.lanes import Lane, serve
from cachekit.model import MISS, Adapter, Event, Reply
from cachekit.nearby import remember
from cachekit.perform import aperform, nothing, perform
from cachekit.policies import policy_of
from cachekit.prepare import Prepared, arguments_of, prepare
from cachekit.replies import Live
from cachekit.streaming import Pieces
from cachekit.targets import Target


class Wanted(NamedTuple):
    """How this caller wants the answer. `streamed`: None for "as it was". `context` is the adapter's own (a client).

    `scope` names the endpoint and tenant whose rate limit the call counts against; `sampled` says that the server may
    answer the same question differently.
    """

    streamed: bool | None = None
    context: Any = None
    scope: str = ""
    sampled: bool = False


class _Ask(NamedTuple):
    """One call on its way: the lane it came by, what it is, what is wanted, and what the lane would look up for it."""

    lane: Lane
    prepared: Prepared
    wanted: Wanted
    arguments: bytes | None

    @property
    def adapter(self) -> Adapter:
        return _adapter(self.lane)

    def near(self) -> Any:
        """The SDK's value of what memory or disk has, or MISS."""
        found = self.prepared.nearby()
        return self.restored(found) if type(found) is Reply else MISS

    def restored(self, reply: Reply) -> Any:
        value = _restored(self.lane, reply, self.wanted)
        if value is MISS:
            self.prepared.cache.drop(self.prepared.key)
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
        def finish(log: list[tuple[int, Any]]) -> Reply:
            assert self.adapter.finish is not None
            reply = self.adapter.finish(b"".join([piece for _, piece in log[1:]]))
            return replace(reply, pieces=tuple((at, len(piece)) for at, piece in log[1:]))

        def whole(log: list[tuple[int, Any]]) -> bool:
            return len(log) > 1 and not self.adapter.judge(finish(log))

        return Pieces(lambda value, at: (at, value), lambda piece: piece[1], finish, whole)


def call(lane: Lane, args: Any, kwargs: Any, origin: Callable[[], Any], wanted: Wanted) -> Any:
    """The stored answer as the SDK's own value, or the origin's."""
    value = _at_once(lane, args, kwargs, wanted)
    if value is not MISS:
        return value
    ask = _ask(lane, args, kwargs, wanted)
    if ask is None:
        return origin()
    value = ask.near()
    if value is not MISS:
        return ask.done(value)
    return ask.done((_stream if wanted.streamed else _whole)(ask, lambda: _heeded(ask, origin)))


async def acall(lane: Lane, args: Any, kwargs: Any, origin: Callable[[], Awaitable[Any]], wanted: Wanted) -> Any:
    value = _at_once(lane, args, kwargs, wanted)
    if value is not MISS:
        return value
    ask = _ask(lane, args, kwargs, wanted)
    if ask is None:
        return await origin()
    value = ask.near()
    if value is not MISS:
        return ask.done(value)
    return ask.done(await (_astream if wanted.streamed else _awhole)(ask, lambda: _aheeded(ask, origin)))


def near(lane: Lane, args: Any, kwargs: Any, wanted: Wanted) -> Any:
    """What memory or disk has, or MISS: for a caller that goes another way where nothing is near."""
    value = _at_once(lane, args, kwargs, wanted)
    if value is not MISS:
        return value
    ask = _ask(lane, args, kwargs, wanted, quiet=True)
    value = MISS if ask is None else ask.near()
    return value if ask is None or value is MISS else ask.done(value)


def _adapter(lane: Lane) -> Adapter:
    adapter = lane.target.policy.adapter
    assert adapter is not None
    return adapter


def _at_once(lane: Lane, args: Any, kwargs: Any, wanted: Wanted) -> Any:
    found = serve(lane, args, kwargs)
    return _restored(lane, found, wanted) if type(found) is Reply else MISS


def _restored(lane: Lane, reply: Reply, wanted: Wanted) -> Any:
    streamed = reply.kind == "stream" if wanted.streamed is None else wanted.streamed
    try:
        return _adapter(lane).restore(reply, streamed, wanted.context)
    except Exception as error:  # an entry that this SDK cannot rebuild is a miss, and is told
        ROOT.cache().tell(Event("error", lane.target.name, "adapter", type(error).__name__, error=error))
        return MISS


def _ask(lane: Lane, args: Any, kwargs: Any, wanted: Wanted, *, quiet: bool = False) -> _Ask | None:
    """None where the call must go straight to the origin; the reason is counted."""
    if wanted.sampled and not _may_keep_samples(lane, quiet=quiet):
        return None
    prepared = prepare(lane.target, args, kwargs, streamed=bool(wanted.streamed), quiet=quiet)
    return None if prepared is None else _Ask(lane, prepared, wanted, arguments_of(prepared, args, kwargs))


def _may_keep_samples(lane: Lane, *, quiet: bool) -> bool:
    context, target = current(), lane.target
    if target.policy.cache_sampled or (context is not None and context.sample is not None):
        return True
    if not quiet:
        ROOT.cache().tell(Event("bypass", target.name, reason="sampled"))
        target.warn_once(
            UsageError(
                "its answers are sampled, so the same call may be answered differently, and they are not cached; "
                "ask with temperature=0 where the API has it, inside `with cachekit.sample(0):`, or wrap with "
                "cache_sampled=True"
            ),
            about="sampled",
            stacklevel=7,
        )
    return False


def _heeded(ask: _Ask, origin: Callable[[], Any]) -> Any:
    cooldowns, scope = ask.prepared.cache.cooldowns, ask.wanted.scope
    cooldowns.wait(scope)
    try:
        return origin()
    except Exception as error:  # raised again: only what it says of the next attempt is noted
        cooldowns.heed(scope, error)
        raise


async def _aheeded(ask: _Ask, origin: Callable[[], Awaitable[Any]]) -> Any:
    cooldowns, scope = ask.prepared.cache.cooldowns, ask.wanted.scope
    await cooldowns.await_(scope)
    try:
        return await origin()
    except Exception as error:  # raised again: only what it says of the next attempt is noted
        cooldowns.heed(scope, error)
        raise


# -- whole answers --------------------------------------------------------------------------------------------------


def _whole(ask: _Ask, origin: Callable[[], Any]) -> Any:
    found = perform(ask.prepared, plans.plan(ask.prepared.request), lambda: ask.live(origin()))
    if type(found) is Reply:
        value = ask.restored(found)
        return origin() if value is MISS else value
    if not found.streaming:
        return found.value
    return _retold(ask, streaming.alone(ask.prepared, lambda: _headed(ask, lambda: found.value), ask.pieces()))


async def _awhole(ask: _Ask, origin: Callable[[], Awaitable[Any]]) -> Any:
    async def asked() -> Live:
        return ask.live(await origin())

    async def same() -> Any:
        return found.value

    found = await aperform(ask.prepared, plans.plan(ask.prepared.request), asked)
    if type(found) is Reply:
        value = ask.restored(found)
        return await origin() if value is MISS else value
    if not found.streaming:
        return found.value
    return await _aretold(ask, streaming.aalone(ask.prepared, lambda: _aheaded(ask, same), ask.pieces()))


# -- streams: the first piece is the SDK's own stream, the others are what it read from the wire -----------------------


def _stream(ask: _Ask, origin: Callable[[], Any]) -> Any:
    found = streaming.found_or(ask.prepared, lambda: ask.live(origin()))
    if type(found) is Reply and (value := ask.restored(found)) is not MISS:
        return value
    try:
        return _retold(ask, streaming.follow(ask.prepared, lambda: _headed(ask, origin), ask.pieces()))
    except Exception:  # the SDK's own, raised again unless something old may be served in its place
        old = streaming.stale(ask.prepared)
        if type(old) is not Reply:
            raise
        return ask.restored(old)


async def _astream(ask: _Ask, origin: Callable[[], Awaitable[Any]]) -> Any:
    async def asked() -> Live:
        return ask.live(await origin())

    found = await streaming.afound_or(ask.prepared, asked)
    if type(found) is Reply and (value := ask.restored(found)) is not MISS:
        return value
    try:
        return await _aretold(ask, streaming.afollow(ask.prepared, lambda: _aheaded(ask, origin), ask.pieces()))
    except Exception:  # the SDK's own, raised again unless something old may be served in its place
        old = await streaming.astale(ask.prepared)
        if type(old) is not Reply:
            raise
        return ask.restored(old)


def _headed(ask: _Ask, origin: Callable[[], Any]) -> Iterator[Any]:
    stream = origin()
    yield stream
    yield from ask.adapter.source(stream)


async def _aheaded(ask: _Ask, origin: Callable[[], Awaitable[Any]]) -> AsyncIterator[Any]:
    stream = await origin()
    yield stream
    async for piece in ask.adapter.source(stream):
        yield piece


def _retold(ask: _Ask, pieces: Iterator[Any]) -> Any:
    return ask.adapter.retold(next(pieces), pieces)


async def _aretold(ask: _Ask, pieces: AsyncIterator[Any]) -> Any:
    return ask.adapter.retold(await pieces.__anext__(), pieces)


class Answers:
    """The cached calls of one operation of a server: what an adapter's `wrap` puts between a client and its SDK.

    `said` are the keywords of `distributed_cache`. What identifies a call is passed as one value, plain data at best.
    """

    def __init__(self, adapter: Adapter, **said: Any) -> None:
        policy = policy_of(**{"version": "1", "cache_sampled": False, **said, "adapter": adapter})
        self.adapter = adapter
        self._lane = Lane(Target(_named(adapter.name), policy), None)

    def near(self, identity: Any, wanted: Wanted) -> Any:
        """What memory or disk has, as the SDK's value, or MISS."""
        return near(self._lane, (identity,), {}, wanted)

    def call(self, identity: Any, origin: Callable[[], Any], wanted: Wanted) -> Any:
        """The stored answer as the SDK's value, or what `origin` gives; its exceptions pass untouched."""
        return call(self._lane, (identity,), {}, origin, wanted)

    async def acall(self, identity: Any, origin: Callable[[], Awaitable[Any]], wanted: Wanted) -> Any:
        return await acall(self._lane, (identity,), {}, origin, wanted)

    def stored(self, identity: Any) -> Any:
        """The Reply of a call that is part of another one (an item of a batch), or MISS. May raise CacheMiss."""
        prepared = prepare(self._lane.target, (identity,), {})
        return MISS if prepared is None else streaming.found_or(prepared, nothing)

    def keep(self, identity: Any, reply: Reply, started: int, seconds: float) -> None:
        """Stores an answer that came with others, asked for at `started` (nanoseconds since the epoch)."""
        prepared = prepare(self._lane.target, (identity,), {})
        if prepared is not None:
            perform(prepared, plans.settle(prepared.request, reply, started, seconds), nothing, announce=True)


def _named(name: str) -> Callable[[Any], None]:
    def ask(call: Any) -> None:
        """Stands for the operation in keys and statistics; it is never called."""

    ask.__module__, ask.__name__, ask.__qualname__ = "cachekit_adapters", name, name
    return ask
