"""One call of a model's server: what is wanted, what is known of it, and when its endpoint may be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple

from cachekit.default import ROOT
from cachekit.lanes import Lane
from cachekit.model import MISS, Adapter, Event, Reply
from cachekit.nearby import Nearby, remember
from cachekit.prepare import Prepared
from cachekit.replies import Live
from cachekit.streaming import Pieces


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
