"""The default cache, made from the settings on first use, and the module functions that set it up or look at it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cachekit.cache.cache import Cache
from cachekit.cache.counters import Snapshot
from cachekit.errors import TierUnavailable, UsageError
from cachekit.files import forks
from cachekit.model import Event, Mode, TierState
from cachekit.plan.gate import current, decide

if TYPE_CHECKING:
    from cachekit.cache.registry import Registry
    from cachekit.config.resolve import Resolved
    from cachekit.model import Listener
    from cachekit.tiers.disk import DiskTier


class Root:
    """Which cache is the default one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        forks.enrol(self)
        self.overrides: dict[str, Any] = {}
        self.listeners: list[Listener] = []
        self._cache: Cache | None = None
        self._beside: dict[str, Cache] = {}

    def cache(self) -> Cache:
        cache = self._cache
        return cache if cache is not None else self._make()

    def _make(self) -> Cache:
        forks.watch()
        with self.lock:
            if self._cache is None:
                made = Cache(_resolved(self.overrides), os.environ)
                made.listeners = self.listeners
                self._cache = made
            return self._cache

    def beside(self, ipfs: str) -> Cache:
        """The default cache but for its setting `ipfs`; the same one as long as nothing else changes."""
        with self.lock:
            if ipfs not in self._beside:
                made = Cache(_resolved({**self.overrides, "ipfs": ipfs}), os.environ)
                made.listeners, made.stats = self.listeners, self.cache().stats
                self._beside[ipfs] = made
            return self._beside[ipfs]

    def replace(self, overrides: dict[str, Any]) -> None:
        """The next call makes a new default cache; settings that do not resolve raise UsageError and change nothing."""
        _resolved(overrides)
        with self.lock:
            self.close_lanes()
            old = [*([self._cache] if self._cache else []), *self._beside.values()]
            self._cache, self._beside, self.overrides = None, {}, overrides
        for cache in old:
            cache.close(bound=0.0)

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever."""
        self.lock = threading.RLock()

    def close_lanes(self) -> None:
        if self._cache is not None:
            self._cache.lanes.close()


def _resolved(overrides: dict[str, Any]) -> Resolved:
    # Settings are read at the first call, and so is the code that reads them.
    from cachekit.config import resolve

    return resolve.resolve(os.environ, overrides=overrides)


ROOT = Root()


def default() -> Cache:
    """The cache that decorated functions use, opened."""
    return ROOT.cache().ready()


def beside(ipfs: str | None) -> Cache:
    """The default cache, opened; where `ipfs` is another one than its setting, one beside it that has that."""
    if ipfs is None or ipfs == ROOT.cache().settings.ipfs:
        return default()
    return ROOT.beside(ipfs).ready()


class Configured:
    """What `configure` returns: leaving it as a `with` block brings the settings before it back."""

    def __init__(self, before: dict[str, Any]) -> None:
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exc: object) -> None:
        ROOT.replace(self._before)


def configure(**settings: Any) -> Configured:
    """Changes settings for this process, or as a `with` block until its end: `ttl=`, `ipfs=`, `dir=`, `mode=`, …

    The names are those of the `CACHEKIT_` variables in small letters; what is given here wins over the environment and
    over cachekit.toml, which are read again. Raises UsageError for an unknown name or a value that is not accepted.
    """
    before = ROOT.overrides
    ROOT.replace({**before, **settings})
    return Configured(before)


def add_listener(listener: Listener) -> Callable[[], None]:
    """Calls `listener` with each Event from now on; returns a function that removes it.

    It is called on the thread of the call that it is about: be quick. What it raises does not reach the caller,
    and is counted as an error of `listener`. While there are listeners, a memory hit takes a slower way, so that each of
    them is an event.
    """
    ROOT.listeners.append(listener)
    ROOT.close_lanes()

    def remove() -> None:
        if listener in ROOT.listeners:
            ROOT.listeners.remove(listener)

    return remove


def tell(event: Event) -> None:
    """Counts an Event of an adapter's own in `stats()`, and calls every listener with it."""
    ROOT.cache().tell(event)


def current_mode() -> Mode:
    """The mode of a call made here: "off" inside `bypass()`, else the innermost `mode()` block's, else the settings'."""
    return decide(ROOT.cache().settings.mode, current())


def stats(function: Any = None) -> Snapshot:
    """What happened in this process so far, as numbers: for one decorated `function`, or for all.

    `stats().as_dict()` has calls, hits by tier, misses, errors by tier and reason, durations in seconds, sizes in bytes.
    `cachekit stats` shows the totals of the machine. Raises UsageError for a function that is not decorated.
    """
    if function is None:
        return ROOT.cache().stats.snapshot()
    target = getattr(function, "_self_target", None)
    if target is None:
        raise UsageError("stats() takes a decorated function, or nothing for all of them")
    return ROOT.cache().stats.snapshot(target.name)


def reset_stats() -> None:
    """Sets the numbers of `stats()` to zero in this process; the totals of the machine stay."""
    ROOT.cache().stats.reset()


def status(*, ipfs: str | None = None) -> Status:
    """For memory, disk and IPFS whether it is on, and why: a dict of tier names to states with `on` and `reason`.

    `ipfs` wins over CACHEKIT_IPFS for this look.
    """
    return Status(beside(ipfs).status())


class Status(dict[str, TierState]):
    """{tier: TierState}; `as_dict` is plain data."""

    def as_dict(self) -> dict[str, Any]:
        """{tier: {"on": bool, "reason": str}}"""
        return {name: {"on": state.on, "reason": state.reason} for name, state in self.items()}


def registry() -> Registry:
    """The artifacts of the default cache. Raises TierUnavailable where there is no disk tier."""
    from cachekit.cache.registry import Registry

    cache, tier = default(), disk()
    assert cache.artifacts is not None  # the store lies beside the disk tier
    return Registry(cache.artifacts, tier, cache.team, cache.ledger.covers, cache.settings.namespace)


def disk() -> DiskTier:
    """The disk tier of the default cache. Raises TierUnavailable where there is none, or UsageError if that is the user's."""
    cache = default()
    if cache.disk is None:
        for failure in cache.ready().failures:
            if isinstance(failure.error, UsageError):
                raise failure.error
        raise TierUnavailable(f"there is no disk tier: {cache.status()['disk'].reason}", reason="off")
    return cache.disk
