"""From a call to what a plan needs to know: gate, key, request; and the plan performed, with its errand and its retries.

A flow is the same for functions and coroutine functions. `Prepared.is_async` says by which of the two loops it is driven.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cachekit.cache.cache import Cache
from cachekit.cache.default import ROOT
from cachekit.cache.reasons import Remembering
from cachekit.calls.lanes import Nearby, at_hand
from cachekit.calls.target import Call, Keyed, Target, about
from cachekit.errors import CacheMiss, CannotKey, UsageError
from cachekit.files.digests import content_digest
from cachekit.keys.binding import Unbound
from cachekit.model import Adapter, Event, Mode, Policy
from cachekit.plan import loops, retrying
from cachekit.plan import plan as plans
from cachekit.plan.drive import arun, run
from cachekit.plan.errand import Errand
from cachekit.plan.gate import current, decide, why_off
from cachekit.plan.steps import STREAMING, Begin, Request, Steps
from cachekit.plan.waiting import MULTIPLE, led


def nothing() -> Any:
    """The origin of a plan that never calls it."""
    raise CacheMiss("this plan never calls the origin")


class Prepared:
    """A call that the cache takes part in. The request is made when a plan needs it: a hit nearby does not.

    `said` is the JSON of the arguments, where the key was built of it, `seen` the ledger's `last_store` before a look nearby.
    """

    __slots__ = ("_request", "cache", "call", "is_async", "key", "mode", "refine", "said", "seen", "streamed", "target")

    def __init__(
        self, cache: Cache, target: Target, key: Keyed, call: Call, mode: Mode, *, streamed: bool = False
    ) -> None:
        self.cache, self.target, self.call, self.streamed = cache, target, call, streamed
        self.key, self.said = key
        self.is_async = target.is_async
        self.mode: Mode = mode
        self.refine: Callable[[Request], Request] | None = None  # what a kind of call makes of its request
        self._request: Request | None = None
        self.seen = -1

    @property
    def request(self) -> Request:
        if self._request is None:
            found = _request(self)
            self._request = found if self.refine is None else self.refine(found)
        return self._request

    def nearby(self) -> Any:
        """A value that needs no plan to be served, or what was seen instead."""
        if self.mode != "on":
            return Nearby.UNSURE
        self.seen = self.cache.ledger.last_store()
        return at_hand(self.cache, self.target, self.key, streamed=self.streamed)


def prepare(target: Target, args: Any, kwargs: Any, *, streamed: bool = False, quiet: bool = False) -> Prepared | None:
    """None where the call must go straight to the origin; the reason is counted, unless somebody asks again (`quiet`)."""
    cache = opened(target)
    if cache is None:
        return None
    mode = decide(cache.settings.mode, current())
    if mode == "off":
        _passed(cache, target, why_off(), quiet=quiet)
        return None
    call = target.full(args, kwargs)
    try:
        key = target.key(call, namespace_of(target, cache), sample_of(target))
    except CannotKey as error:
        if cache.settings.strict:
            raise
        _passed(cache, target, error.reason, quiet=quiet)
        # A mock is meant: a test that stands one in asks for no advice.
        if not quiet and error.reason != "mocked":
            target.warn_once(error, about=about(error))
        return None
    except Unbound:
        # Python's own refusal of the arguments: the origin raises it better than we could.
        _passed(cache, target, "unbound", quiet=quiet)
        return None
    return Prepared(cache, target, key, call, mode, streamed=streamed)


def opened(target: Target) -> Cache | None:
    """The cache, with what a first call imports; None where no file can be opened for that."""
    try:
        cache = ROOT.cache()
        if decide(cache.settings.mode, current()) == "off":
            return cache
        cache.ready()
        if target.is_async:
            cache.pool()
        assert target.codec is not None
    except OSError as error:  # no descriptor is free, or the code itself cannot be read: the call needs neither
        unopened(target, error)
        return None
    if _untold:
        _tell_late(cache)
    return cache


def unopened(target: Target, error: OSError) -> None:
    """Counts a call that goes straight to the origin because a file could not be opened."""
    _untold.append(Event("bypass", target.name, reason="no_file", error=error))
    try:
        cache = ROOT.cache()
    except OSError:  # not even what counts can be loaded: it is told later
        return
    _tell_late(cache)


def _tell_late(cache: Cache) -> None:
    while _untold:
        cache.tell(_untold.popleft())


_untold: Final[deque[Event]] = deque(maxlen=1024)


def _passed(cache: Cache, target: Target, reason: str, *, quiet: bool) -> None:
    if not quiet:
        cache.tell(Event("bypass", target.name, reason=reason))


def keyed(target: Target, args: Any, kwargs: Any) -> Prepared:
    """The call as the helpers take it: which one is meant must be said, and it must be one that can be keyed."""
    cache = ROOT.cache()
    mode = decide(cache.settings.mode, current())
    cache.ready()
    call = target.full(args, kwargs)
    try:
        key = target.key(call, namespace_of(target, cache), sample_of(target))
    except Unbound as error:
        raise Unbound(target.asks_for(error)) from None
    return Prepared(cache, target, key, call, mode)


def _request(prepared: Prepared) -> Request:
    cache, target, key, call = prepared.cache, prepared.target, prepared.key, prepared.call
    policy = target.policy
    take = functools.partial(target.keyer.sketch, key, *call, sample=sample_of(target), said=prepared.said)
    memory = Remembering(cache, target.keyer, key, take)
    took = cache.flights.took.get(key.function, 0.0)
    far = ("ipfs",) if policy.share and key.shareable and "ipfs" in cache.tiers else ()
    claims = cache.claims if far else None
    return Request(
        key=key,
        codec=target.codec,
        near=cache.near,
        far=far,
        clock=time.time_ns,
        mode=prepared.mode,
        ttl=_ttl(policy, cache),
        stale_while_revalidate=policy.stale_while_revalidate,
        stale_if_error=policy.stale_if_error,
        cacheable=policy.cacheable,
        tags=functools.partial(target.tags, call) if policy.tags else tuple,
        pin=policy.pin,
        leases=cache.disk is not None,
        explain=functools.partial(_explained, target, call),
        streamed=prepared.streamed,
        missed=memory.missed,
        noted=memory.noted,
        changed=functools.partial(_changed, prepared),
        news=functools.partial(cache.ledger.has_stored_since, prepared.seen),
        patience=max(cache.settings.patience, MULTIPLE * took),
        nested=bool(led()),
        previous=policy.previous,
        coalesce="machine" if claims is None else policy.coalesce,
        took=float if claims is None else functools.partial(claims.took, key.function, took),
        judge=None if policy.adapter is None else functools.partial(_judged, policy, policy.adapter),
    )


def changed_inputs(prepared: Prepared) -> Iterator[Path]:
    """Paths whose content is another one now than when the key was built: the value may be of either."""
    return (path for path, digest in prepared.key.inputs if _is_other(path, digest))


def _changed(prepared: Prepared) -> bool:
    prepared.target.keyer.settle()
    return bool(prepared.key.inputs) and next(changed_inputs(prepared), None) is not None


def _is_other(path: Path, digest: bytes) -> bool:
    try:
        return content_digest(path, where="path") != digest
    except CannotKey:
        return path.exists()  # a function may take its input away: what it took away it has read


def _ttl(policy: Policy, cache: Cache) -> float | None:
    if policy.ttl != "default":
        return policy.ttl
    preset = "default" if policy.adapter is None else policy.adapter.ttl
    return cache.settings.ttl if preset == "default" else preset


def _judged(policy: Policy, adapter: Adapter, value: Any) -> str:
    from cachekit.calls.answers.replies import Live

    if isinstance(value, Live) and value.streaming:
        return STREAMING
    reply = value.reply if isinstance(value, Live) else value
    reason = "" if reply is None else adapter.judge(reply)
    return "" if reason == "truncated" and policy.cache_truncated else reason


def _explained(target: Target, call: Call) -> str:
    from cachekit.keys.outline import Explanation

    key = target.explained(call, namespace_of(target, ROOT.cache()), sample_of(target))
    return str(Explanation(key, key.parts, ""))


def namespace_of(target: Target, cache: Cache) -> str:
    return target.policy.namespace or cache.settings.namespace


def sample_of(target: Target) -> int:
    context = current()
    return target.policy.sample if context is None or context.sample is None else context.sample


def perform(
    prepared: Prepared,
    steps: Steps,
    origin: Callable[[], Any] = nothing,
    *,
    whole: Callable[[], Any] | None = None,
    **how: bool,
) -> Any:
    """What the steps return; on an event loop, an awaitable of it. A refresh in the background calls `whole`, if given."""
    return driven(begun(prepared, steps, origin, whole=whole, **how), is_async=prepared.is_async)


def begun(
    prepared: Prepared,
    steps: Steps,
    origin: Callable[[], Any] = nothing,
    *,
    whole: Callable[[], Any] | None = None,
    **how: bool,
) -> Steps:
    """The same as a part of a longer flow."""
    cache, policy = prepared.cache, prepared.target.policy

    def warn(error: UsageError) -> None:
        prepared.target.warn_once(error, about=about(error), paid=True)

    # What is stored says so: an export, which comes later, must not take it along.
    key = prepared.key if policy.share else replace(prepared.key, shareable=False)
    revalidate = functools.partial(_revalidate, prepared, whole or origin)
    yield Begin(Errand(cache, key, origin, revalidate=revalidate, sealed=policy.encrypt, warn=warn, **how))
    return (yield from steps)


def driven(flow: Steps, *, is_async: bool) -> Any:
    """Performs a generator of steps (`CallOrigin`, `Do`) and gives what it returns; with `is_async` an awaitable of it."""
    return arun(flow, ROOT.cache().pool) if is_async else run(flow)


def _revalidate(prepared: Prepared, origin: Callable[[], Any], given: Mapping[str, Any]) -> None:
    renewing = begun(prepared, plans.renew(prepared.request, given), origin, announce=True)
    if not prepared.is_async:
        prepared.cache.in_background(functools.partial(run, renewing))
        return
    loops.start(lambda: _renewed(prepared, arun(renewing, prepared.cache.pool)))


async def _renewed(prepared: Prepared, renewing: Awaitable[Any]) -> None:
    try:
        await renewing
    except Exception as error:  # a refresh has no caller to raise to: the event is all there is
        prepared.cache.stats(Event("error", prepared.target.name, "origin", type(error).__name__, error=error))


def retried(target: Target, origin: Callable[[], Any]) -> Callable[[], Any]:
    """The origin with the retries that were asked for."""
    retry = target.policy.retry
    if retry is None:
        return origin
    return functools.partial(retrying.call, retry, origin, is_async=target.is_async)
