"""Calls of a model's server: the answer is kept as it was on the wire, and comes back as the SDK's own value.

Decided here is what only such a call has: may the answer be kept at all (a sampled one differs each time), is it wanted
as a stream, and how does a stored one become the SDK's value again. All the rest is the common path of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from cachekit.cache.default import ROOT
from cachekit.calls.answers.asking import Ask, Wanted, heeding, live, restored, stream, whole
from cachekit.calls.answers.parts import Batch, parts
from cachekit.calls.call import explain, storing
from cachekit.calls.lanes import Lane, Nearby, arguments_of, remember, serve
from cachekit.calls.policy import policy_of
from cachekit.calls.prepare import Prepared, begun, driven, keyed, prepare
from cachekit.calls.target import Target
from cachekit.errors import UsageError
from cachekit.model import MISS, Adapter, Event, Reply
from cachekit.plan import plan as plans
from cachekit.plan.gate import Scope, current
from cachekit.plan.steps import CallOrigin, Steps

if TYPE_CHECKING:
    from cachekit.keys.outline import Explanation


def near(lane: Lane, args: Any, kwargs: Any, wanted: Wanted) -> Any:
    """What memory or disk has, or MISS: for a caller that goes another way where nothing is near."""
    value = _at_once(lane, args, kwargs, wanted)
    if value is not MISS:
        return value
    prepared = _prepared(lane, args, kwargs, wanted, quiet=True)
    if prepared is None:
        return MISS
    value = Ask(lane, prepared, wanted, None).near()
    if type(value) is Nearby:
        lane.looked = (prepared.key.digest, prepared.seen) if value is Nearby.NOTHING else None
        return MISS
    remember(prepared.cache, lane, arguments_of(prepared, args, kwargs), prepared.key)
    return value


def call(
    lane: Lane, args: Any, kwargs: Any, origin: Callable[[], Any], wanted: Wanted, *, again: bool = False
) -> Steps:
    """The stored answer as the SDK's own value, or the origin's; `again`: the origin's, whatever is stored."""
    value = MISS if again else _at_once(lane, args, kwargs, wanted)
    if value is not MISS:
        return value
    with Scope(mode="refresh") if again else nullcontext():
        prepared = _prepared(lane, args, kwargs, wanted)
    if prepared is None:
        return (yield CallOrigin(origin=origin)).value
    ask = Ask(lane, prepared, wanted, arguments_of(prepared, args, kwargs))
    # What `near` looked for just now, on behalf of this call, need not be looked for again.
    looked, lane.looked = lane.looked, None
    if looked is not None and looked[0] == prepared.key.digest and prepared.mode == "on":
        value, prepared.seen = Nearby.NOTHING, looked[1]
    else:
        value = ask.near()
    if type(value) is not Nearby:
        return value

    def asked() -> Any:
        return driven(heeding(origin, wanted.scope), is_async=wanted.is_async)

    return (yield from stream(ask, asked) if wanted.streamed else whole(ask, value, asked, announce=again))


def wanted(target: Target, args: Any, kwargs: Any) -> Wanted:
    """How a decorated function's caller wants the answer."""
    adapter = target.policy.adapter
    assert adapter is not None
    bound = target.bound(args, kwargs)
    streamed = bound.get("stream")
    sampled = not target.policy.cache_sampled and adapter.sampled(bound)
    context = "async" if target.is_async else None
    return Wanted(None if streamed is None else bool(streamed), context, adapter.name, sampled, target.is_async)


def peek(lane: Lane, args: Any, kwargs: Any, wanted: Wanted) -> Steps:
    """The stored answer as the SDK's own value, or MISS."""
    prepared = keyed(lane.target, args, kwargs)
    reply = yield from begun(prepared, plans.peek(prepared.request), quiet=True)
    return restored(lane, reply, wanted) if type(reply) is Reply else MISS


def put(lane: Lane, args: Any, kwargs: Any, value: Any) -> Steps:
    """Stores the SDK's value, or a Reply; returns whether it was stored."""
    prepared = storing(lane.target, args, kwargs)
    answer = value if type(value) is Reply else live(lane, value)
    return (yield from begun(prepared, plans.put(prepared.request, answer), announce=True))


def _at_once(lane: Lane, args: Any, kwargs: Any, wanted: Wanted) -> Any:
    known = serve(lane, args, kwargs)
    return restored(lane, known, wanted) if type(known) is Reply else MISS


def _prepared(lane: Lane, args: Any, kwargs: Any, wanted: Wanted, *, quiet: bool = False) -> Prepared | None:
    """None where the call must go straight to the origin; the reason is counted."""
    if wanted.sampled and not _may_keep_samples(lane, quiet=quiet):
        return None
    prepared = prepare(lane.target, args, kwargs, streamed=bool(wanted.streamed), quiet=quiet)
    if prepared is not None:
        prepared.is_async = wanted.is_async
    return prepared


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
        )
    return False


class Answers:
    """The cached calls of one operation of a server, for adapters: `wrap` puts it between a client and its SDK.

    `said` are the keywords of `distributed_cache`. An `identity` is whatever decides the answer (endpoint, model, body),
    as one value that can be keyed, such as a dict of JSON; an `origin` is a function that makes the request and returns
    the SDK's value.
    """

    def __init__(self, adapter: Adapter, **said: Any) -> None:
        policy = policy_of(**{"version": "1", "cache_sampled": False, **said, "adapter": adapter})
        self.adapter = adapter
        self._lane = Lane(Target(_named(adapter.name), policy), None)

    def near(self, identity: Any, wanted: Wanted) -> Any:
        """The answer that memory or disk has, as the SDK's value, or MISS; nothing is asked, and no miss is counted."""
        return near(self._lane, (identity,), {}, wanted)

    def call(self, identity: Any, origin: Callable[[], Any], wanted: Wanted) -> Any:
        """The stored answer as the SDK's value, or what `origin` returns, which is then stored.

        An awaitable of it where `wanted.is_async`. Exceptions of `origin` pass untouched; CacheMiss in mode `replay`.
        """
        return driven(self.asking(identity, origin, wanted), is_async=wanted.is_async)

    def asking(self, identity: Any, origin: Callable[[], Any], wanted: Wanted) -> Steps:
        """`call` as a part of a longer flow: `yield from` it in a generator that `driven` performs."""
        return call(self._lane, (identity,), {}, origin, wanted)

    def heeding(self, origin: Callable[[], Any], scope: str) -> Steps:
        """A flow that calls `origin`, uncached, after the time for which the endpoint `scope` answered Retry-After."""
        return heeding(origin, scope)

    def explain(self, identity: Any) -> Explanation:
        """What the key of such a call consists of, where an answer stands, and what differs from the nearest earlier one."""
        return explain(self._lane.target, (identity,), {})

    def passed(self, reason: str) -> None:
        """Counts a call that went straight to the server, in `stats()` under `bypasses[reason]`."""
        ROOT.cache().tell(Event("bypass", self._lane.target.name, reason=reason))

    def parts(
        self, identities: Sequence[Any], batch: Batch, *, scope: str = "", is_async: bool = False, again: bool = False
    ) -> Steps:
        """A flow: what `batch` wants to know of `identities`, no two equal, each kept alone; see `Batch`.

        What is stored, or asked for by another call of this process, is told; `batch.ask` is called once for the rest,
        with `again` for everything. `scope` names the endpoint for its rate limit. What `ask` raises passes untouched;
        CacheMiss in mode `replay`.
        """
        calls = [(identity,) for identity in identities]
        return parts(self._lane, calls, batch, scope=scope, is_async=is_async, again=again)


def _named(name: str) -> Callable[[Any], None]:
    def ask(call: Any) -> None:
        """Stands for the operation in keys and statistics; it is never called."""

    ask.__module__, ask.__name__, ask.__qualname__ = "cachekit_adapters", name, name
    return ask
