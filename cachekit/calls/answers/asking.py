"""One call of a model's server: what is wanted, what is known of it, when its endpoint may be asked, and the way there.

The answer comes whole or as a stream. Of a stream the first piece is the SDK's own stream, and the others are what it
read from the wire: so whoever follows it gets a stream of the same kind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from cachekit.cache.default import ROOT
from cachekit.calls.answers.replies import Live
from cachekit.calls.lanes import Lane, Nearby, remember
from cachekit.calls.prepare import Prepared, begun, driven
from cachekit.calls.streams.log import Pieces
from cachekit.calls.streams.streaming import alone, opened, streamed
from cachekit.model import MISS, Adapter, Event, Reply
from cachekit.plan import plan as plans
from cachekit.plan.retrying import Cooldowns
from cachekit.plan.steps import Begin, CallOrigin, Steps


class Wanted(NamedTuple):
    """How a caller of `Answers` wants the answer.

    `streamed`: True for a stream, False for a whole answer, None for what it was when it was stored. `context` is passed
    to `Adapter.restore` as it is (a client, for instance). `scope` names the endpoint and tenant whose rate limit the
    call counts against. `sampled` says that the server may answer the same question differently, `is_async` that the
    origin returns an awaitable, and that the caller wants one.
    """

    streamed: bool | None = None
    context: Any = None
    scope: str = ""
    sampled: bool = False
    is_async: bool = False


class Ask(NamedTuple):
    """One call on its way: the lane it came by, what it is, what is wanted, and what the lane would look up for it."""

    lane: Lane
    prepared: Prepared
    wanted: Wanted
    arguments: bytes | None

    @property
    def adapter(self) -> Adapter:
        return adapter_of(self.lane)

    def near(self) -> Any:
        """The SDK's value of what memory or disk has, or the Nearby that was seen instead."""
        stored = self.prepared.nearby()
        if type(stored) is not Reply:
            return stored
        value = self.restored(stored)
        return Nearby.UNSURE if value is MISS else self.done(value)

    def restored(self, reply: Reply) -> Any:
        value = restored(self.lane, reply, self.wanted)
        if value is MISS:
            # Another machine's SDK may well rebuild it: its hits go on.
            self.prepared.cache.forget(self.prepared.key)
        return value

    def done(self, value: Any) -> Any:
        remember(self.prepared.cache, self.lane, self.arguments, self.prepared.key)
        return value

    def pieces(self, origin: Callable[[], Any]) -> Pieces:
        made: dict[int, Reply] = {}

        def finish(log: list[tuple[int, Any]]) -> Reply:
            # Asked twice where the SDK stops at the last chunk: is the stream whole, and what is to be stored.
            if len(log) not in made:
                assert self.adapter.finish is not None
                (_, stream), *pieces = log
                head = self.adapter.head(stream)
                kept = [(0, head), *pieces] if head else pieces
                reply = self.adapter.finish(b"".join([piece for _, piece in kept]))
                made[len(log)] = replace(reply, pieces=tuple((at, len(piece)) for at, piece in kept))
            return made[len(log)]

        def whole(log: list[tuple[int, Any]]) -> bool:
            return len(log) > 1 and not self.adapter.judge(finish(log))

        def note(value: Any, at: int) -> tuple[int, Any]:
            return at, value

        def size(noted: tuple[int, Any]) -> int:
            return len(noted[1]) if isinstance(noted[1], bytes) else 0

        return Pieces(self.adapter.source, note, lambda piece: piece[1], finish, whole, open=origin, size=size)


def adapter_of(lane: Lane) -> Adapter:
    adapter = lane.target.policy.adapter
    assert adapter is not None
    return adapter


def live(lane: Lane, value: Any) -> Live:
    """The origin's value, with its wire form."""
    adapter = adapter_of(lane)
    try:
        if adapter.streams(value):
            return Live(value, None, streaming=True)
        return Live(value, adapter.capture(value))
    except Exception as error:  # the answer is paid for: what cannot be taken down is not stored, and counted
        return Live(value, None, error=error)


def restored(lane: Lane, reply: Reply, wanted: Wanted) -> Any:
    streamed = reply.kind == "stream" if wanted.streamed is None else wanted.streamed
    try:
        return adapter_of(lane).restore(reply, streamed, wanted.context)
    except Exception as error:  # an entry that this SDK cannot rebuild is a miss, and is told
        ROOT.cache().tell(Event("error", lane.target.name, "adapter", type(error).__name__, error=error))
        return MISS


class Heeding(NamedTuple):
    """The errand of one request: it notes when the endpoint `scope` may be asked again, from what its exception says."""

    cooldowns: Cooldowns
    scope: str

    def end(self, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            self.cooldowns.heed(self.scope, error)


def heeding(origin: Callable[[], Any], scope: str) -> Steps:
    """What the origin gives, asked when its endpoint may be asked."""
    cooldowns = ROOT.cache().cooldowns
    yield from cooldowns.waiting(scope)
    yield Begin(Heeding(cooldowns, scope))
    return (yield CallOrigin(origin=origin)).value


def whole(ask: Ask, nearby: Nearby, origin: Callable[[], Any], *, announce: bool = False) -> Steps:
    """The answer as one value."""
    steps = plans.plan(ask.prepared.request, looked=nearby is Nearby.NOTHING)
    answer = yield from begun(ask.prepared, steps, lambda: _driven(ask, _live(ask, origin)), announce=announce)
    if type(answer) is Reply:
        value = ask.restored(answer)
        return (yield CallOrigin(origin=origin)).value if value is MISS else value
    if not answer.streaming:
        return answer.value
    pieces = ask.pieces(lambda: _driven(ask, _same(answer.value)))
    return _retold(ask, (yield from alone(ask.prepared, pieces)))


def stream(ask: Ask, origin: Callable[[], Any]) -> Steps:
    """The answer as a stream of the SDK's own kind."""
    pieces = ask.pieces(origin)
    answer = yield from streamed(ask.prepared, pieces)
    if type(answer) is Reply:
        value = ask.restored(answer)
        if value is not MISS:
            return value
        answer = (yield CallOrigin(origin=functools.partial(opened, ask.prepared, pieces))).value
    return _retold(ask, answer)


def _driven(ask: Ask, flow: Steps) -> Any:
    return driven(flow, is_async=ask.wanted.is_async)


def _live(ask: Ask, origin: Callable[[], Any]) -> Steps:
    return live(ask.lane, (yield CallOrigin(origin=origin)).value)


def _same(value: Any) -> Steps:
    return value
    yield


def _retold(ask: Ask, stream: Any) -> Any:
    return ask.adapter.retold(stream.first, stream.others)
