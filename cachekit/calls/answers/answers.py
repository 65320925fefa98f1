"""Calls of a model's server: the answer is kept as it was on the wire, and comes back as the SDK's own value.

Decided here is what only such a call has: may the answer be kept at all (a sampled one differs each time), is it wanted
as a stream, and how does a stored one become the SDK's value again. All the rest is the common path of a call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from cachekit.cache.default import ROOT
from cachekit.calls.answers.asking import Ask, Wanted, aheeding, astream, awhole, heeding, restored, stream, whole
from cachekit.calls.lanes import Lane, serve
from cachekit.calls.policy import policy_of
from cachekit.calls.prepare import arguments_of, nothing, perform, prepare
from cachekit.calls.streams import streaming
from cachekit.calls.target import Target
from cachekit.errors import UsageError
from cachekit.model import MISS, Adapter, Event, Reply
from cachekit.plan import plan as plans
from cachekit.plan.gate import current

_looked: ContextVar[tuple[Ask, Any] | None] = ContextVar("cachekit_looked", default=None)
"""What `near` found nothing for: the same call comes again by the other way in a moment."""


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
    return (stream if wanted.streamed else whole)(ask, lambda: heeding(origin, wanted.scope))


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
    return await (astream if wanted.streamed else awhole)(ask, lambda: aheeding(origin, wanted.scope))


def near(lane: Lane, args: Any, kwargs: Any, wanted: Wanted) -> Any:
    """What memory or disk has, or MISS: for a caller that goes another way where nothing is near."""
    value = _at_once(lane, args, kwargs, wanted)
    if value is not MISS:
        return value
    ask = _ask(lane, args, kwargs, wanted, quiet=True)
    if ask is None:
        return MISS
    value = ask.near()
    if value is MISS:
        if ask.arguments is not None:
            _looked.set((ask, args))
        return MISS
    return ask.done(value)


def _at_once(lane: Lane, args: Any, kwargs: Any, wanted: Wanted) -> Any:
    found = serve(lane, args, kwargs)
    return restored(lane, found, wanted) if type(found) is Reply else MISS


def _ask(lane: Lane, args: Any, kwargs: Any, wanted: Wanted, *, quiet: bool = False) -> Ask | None:
    """None where the call must go straight to the origin; the reason is counted."""
    if wanted.sampled and not _may_keep_samples(lane, quiet=quiet):
        return None
    before = _looked.get()
    if before is not None:
        _looked.set(None)
        if _again(*before, lane, args, wanted):
            return before[0]._replace(wanted=wanted)
    prepared = prepare(lane.target, args, kwargs, streamed=bool(wanted.streamed), quiet=quiet)
    return None if prepared is None else Ask(lane, prepared, wanted, arguments_of(prepared, args, kwargs), [])


def _again(before: Ask, asked: Any, lane: Lane, args: Any, wanted: Wanted) -> bool:
    """Whether this is the call that `near` looked for just now, so that its key need not be built again."""
    prepared = before.prepared
    is_same_cache = lane is before.lane and current() is None and prepared.cache is ROOT.cache()
    return is_same_cache and prepared.streamed == bool(wanted.streamed) and _alike(asked, args)


def _alike(one: Any, other: Any) -> bool:
    """Whether two trees of plain data are the same, types included; the order of a mapping does not count."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        return len(one) == len(other) and all(
            type(name) is str and name in other and _alike(one[name], other[name]) for name in one
        )
    if kind is list or kind is tuple:
        return len(one) == len(other) and all(map(_alike, one, other))
    return kind in (str, int, float, bool) and repr(one) == repr(other)


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

    def asked(self, origin: Callable[[], Any], scope: str) -> Any:
        """What `origin` gives, asked for once the endpoint `scope` wants to be asked again."""
        return heeding(origin, scope)

    async def aasked(self, origin: Callable[[], Awaitable[Any]], scope: str) -> Any:
        return await aheeding(origin, scope)

    def passed(self, reason: str) -> None:
        """Counts a call that went straight to the server, under its reason."""
        ROOT.cache().tell(Event("bypass", self._lane.target.name, reason=reason))

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
