"""From a call to what a plan needs to know: gate, key, request. None where the call must go straight to the origin."""

from __future__ import annotations

import functools
import time
from typing import Any

from cachekit.binding import Unbound
from cachekit.cache import Cache
from cachekit.default import ROOT
from cachekit.errors import CannotKey
from cachekit.gate import current, decide
from cachekit.model import Event, Explanation, Key, Mode
from cachekit.nearby import Nearby, at_hand
from cachekit.request import Request
from cachekit.targets import Call, Target, about


class Prepared:
    """A call that the cache takes part in. The request is made when a plan needs it: a hit nearby does not."""

    __slots__ = ("_request", "cache", "call", "key", "mode", "target")

    def __init__(self, cache: Cache, target: Target, key: Key, call: Call, mode: Mode) -> None:
        self.cache, self.target, self.key, self.call = cache, target, key, call
        self.mode: Mode = mode
        self._request: Request | None = None

    @property
    def request(self) -> Request:
        if self._request is None:
            self._request = _request(self.cache, self.target, self.key, self.call, self.mode)
        return self._request

    def nearby(self) -> Any:
        """A value that needs no plan to be served, or what was seen instead."""
        return at_hand(self.cache, self.target, self.key) if self.mode == "on" else Nearby.UNSURE


def prepare(target: Target, args: Any, kwargs: Any) -> Prepared | None:
    """None where the call must go straight to the origin; the reason is counted."""
    cache = ROOT.cache()
    mode = decide(cache.settings.mode, current())
    if mode == "off":
        cache.tell(Event("bypass", target.name, reason=_why_off(cache)))
        return None
    cache.ready()
    call = target.full(args, kwargs)
    try:
        key = target.key(call, namespace_of(target, cache), sample_of(target))
    except CannotKey as error:
        if cache.settings.strict:
            raise
        cache.tell(Event("bypass", target.name, reason="unkeyable"))
        target.warn_once(error, about=about(error), stacklevel=5)
        return None
    except Unbound:
        # Python's own refusal of the arguments: the origin raises it better than we could.
        cache.tell(Event("bypass", target.name, reason="unbound"))
        return None
    return Prepared(cache, target, key, call, mode)


def keyed(target: Target, args: Any, kwargs: Any) -> Prepared:
    cache = ROOT.cache()
    mode = decide(cache.settings.mode, current())
    call = target.full(args, kwargs)
    key = target.key(call, namespace_of(target, cache), sample_of(target))
    cache.ready()
    return Prepared(cache, target, key, call, mode)


def _request(cache: Cache, target: Target, key: Key, call: Call, mode: Mode) -> Request:
    policy = target.policy
    return Request(
        key=key,
        codec=target.codec,
        near=cache.near,
        far=_far(cache, target, key),
        clock=time.time_ns,
        mode=mode,
        ttl=cache.settings.ttl if policy.ttl == "default" else policy.ttl,
        stale_while_revalidate=policy.stale_while_revalidate,
        stale_if_error=policy.stale_if_error,
        cacheable=policy.cacheable,
        tags=functools.partial(target.tags, call) if policy.tags else tuple,
        pin=policy.pin,
        leases=cache.disk is not None,
        explain=functools.partial(_explained, target, call),
    )


def _far(cache: Cache, target: Target, key: Key) -> tuple[str, ...]:
    return ("ipfs",) if target.policy.share and key.shareable and "ipfs" in cache.tiers else ()


def _explained(target: Target, call: Call) -> str:
    key = target.explained(call, namespace_of(target, ROOT.cache()), sample_of(target))
    return str(Explanation(key, key.parts, ""))


def namespace_of(target: Target, cache: Cache) -> str:
    return target.policy.namespace or cache.settings.namespace


def sample_of(target: Target) -> int:
    context = current()
    return target.policy.sample if context is None or context.sample is None else context.sample


def _why_off(cache: Cache) -> str:
    context = current()
    if context is not None and context.bypass:
        return "bypass"
    return "mode_off" if context is None or context.mode is None else "mode_off_in_context"
