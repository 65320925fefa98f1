"""The default cache, made from the settings on first use, and the module functions that set it up or look at it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cachekit.cache.cache import Cache
from cachekit.cache.counters import Snapshot
from cachekit.errors import UsageError
from cachekit.model import Event, Mode, TierState
from cachekit.plan.gate import current, decide

if TYPE_CHECKING:
    from cachekit.config.resolve import Resolved
    from cachekit.model import Listener


class Root:
    """Which cache is the default one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.overrides: dict[str, Any] = {}
        self.listeners: list[Listener] = []
        self._cache: Cache | None = None

    def cache(self) -> Cache:
        found = self._cache
        return found if found is not None else self._make()

    def _make(self) -> Cache:
        with self.lock:
            if self._cache is None:
                made = Cache(_resolved(self.overrides), os.environ)
                made.listeners = self.listeners
                self._cache = made
            return self._cache

    def replace(self, overrides: dict[str, Any]) -> None:
        """The next call makes a new default cache; settings that do not resolve raise UsageError and change nothing."""
        _resolved(overrides)
        with self.lock:
            self.close_lanes()
            old, self._cache, self.overrides = self._cache, None, overrides
        if old is not None:
            old.close(bound=0.0)

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


class Configured:
    """What `configure` returns: leaving it as a `with` block brings the settings before it back."""

    def __init__(self, before: dict[str, Any]) -> None:
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exc: object) -> None:
        ROOT.replace(self._before)


def configure(**settings: Any) -> Configured:
    """Sets what the environment would (`ttl=`, `ipfs=`, `dir=`, …), now or for a `with` block; wins over both.

    The environment is read again. Raises UsageError for an unknown name or a value that is not accepted.
    """
    before = ROOT.overrides
    ROOT.replace({**before, **settings})
    return Configured(before)


def add_listener(listener: Listener) -> Callable[[], None]:
    """Tells `listener` of every event from now on, on the caller's thread; returns what takes it off again.

    While there are listeners, memory hits take the longer way, so that each of them is an event.
    """
    ROOT.listeners.append(listener)
    ROOT.close_lanes()

    def remove() -> None:
        if listener in ROOT.listeners:
            ROOT.listeners.remove(listener)

    return remove


def tell(event: Event) -> None:
    """Counts something that an adapter saw, and tells every listener of it."""
    ROOT.cache().tell(event)


def current_mode() -> Mode:
    """The mode of a call made here and now: what the blocks around it say, else the settings."""
    return decide(ROOT.cache().settings.mode, current())


def stats(function: Any = None) -> Snapshot:
    """What this process counted, in all or for one decorated function; `cachekit stats` shows the machine's totals."""
    if function is None:
        return ROOT.cache().stats.snapshot()
    target = getattr(function, "_self_target", None)
    if target is None:
        raise UsageError("stats() takes a decorated function, or nothing for all of them")
    return ROOT.cache().stats.snapshot(target.name)


def reset_stats() -> None:
    """Begins counting again in this process; the machine's totals keep what was counted."""
    ROOT.cache().stats.reset()


def status() -> Status:
    """What each tier is, and the one reason for it."""
    return Status(default().status())


class Status(dict[str, TierState]):
    """{tier: TierState}; `as_dict` is plain data."""

    def as_dict(self) -> dict[str, Any]:
        """{tier: {"on": bool, "reason": str}}"""
        return {name: {"on": state.on, "reason": state.reason} for name, state in self.items()}
