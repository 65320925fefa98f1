"""The default cache, made from the settings on first use, and the module functions that act on it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachekit import config
from cachekit.cache import Cache, settled, watch_process
from cachekit.errors import TierUnavailable, UsageError
from cachekit.model import EVERYWHERE, Key, Mark, TierState
from cachekit.stats import Snapshot

if TYPE_CHECKING:
    from cachekit.protocols import Listener
    from cachekit.tiers.ipfs import IpfsTier


class Root:
    """Which cache is the default one. `lanes` are the fast lanes that lead into it, closed when it changes."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.overrides: dict[str, Any] = {}
        self.listeners: list[Listener] = []
        self.lanes: weakref.WeakSet[Any] = weakref.WeakSet()
        self._cache: Cache | None = None
        self._watching = False

    def cache(self) -> Cache:
        found = self._cache
        return found if found is not None else self._make()

    def _make(self) -> Cache:
        with self.lock:
            if self._cache is None:
                if not self._watching:
                    watch_process()
                    self._watching = True
                made = Cache(config.resolve(os.environ, overrides=self.overrides), os.environ)
                made.listeners = self.listeners
                self._cache = made
            return self._cache

    def replace(self, overrides: dict[str, Any]) -> None:
        """The next call makes a new default cache; settings that do not resolve raise UsageError and change nothing."""
        config.resolve(os.environ, overrides=overrides)
        with self.lock:
            old, self._cache, self.overrides = self._cache, None, overrides
            self.close_lanes()
        if old is not None:
            old.close(bound=0.0)

    def close_lanes(self) -> None:
        for lane in list(self.lanes):
            lane.close()


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
    return Status(default().status(), settled(default()))


class Status(dict[str, TierState]):
    """{tier: TierState}; `as_dict` is plain data."""

    def __init__(self, states: Mapping[str, TierState], plain: dict[str, Any]) -> None:
        super().__init__(states)
        self._plain = plain

    def as_dict(self) -> dict[str, Any]:
        """{tier: {"on": bool, "reason": str}}"""
        return self._plain


def invalidate(*, tag: str | None = None, namespace: str | None = None, key: Key | str | None = None) -> bool:
    """Ends hits for a tag, a namespace, a tag of a namespace, or one key; returns whether something was removed."""
    for name, value in (("tag", tag), ("namespace", namespace)):
        if value == "" or value == EVERYWHERE:
            raise UsageError(
                f"invalidate({name}={value!r}): the {name} must be named; clear() ends the namespace's hits"
            )
    cache = default()
    if key is not None:
        return cache.drop(parse_key(key))
    if tag is not None:
        return cache.drop_marked([Mark(namespace or EVERYWHERE, "tag", tag, time.time_ns())])
    if namespace is not None:
        return cache.drop_marked([Mark(namespace, "namespace", "", time.time_ns())])
    raise UsageError("invalidate() takes tag=, namespace= or key=; clear() ends every hit of the namespace")


def parse_key(key: Key | str) -> Key:
    """The Key of `<namespace>/<hex digest>`, which is what `str(key)` gives."""
    if isinstance(key, Key):
        return key
    namespace, _, digest = key.rpartition("/")
    try:
        return Key(namespace, bytes.fromhex(digest))
    except ValueError as error:
        raise UsageError(f"{key!r} is not a key; str(f.key_for(...)) and `cachekit ls` give one") from error


def clear() -> bool:
    """Ends hits for every entry of the namespace stored before now, whoever wrote it."""
    return invalidate(namespace=default().settings.namespace)


def flush(timeout: float | None = None) -> None:
    """Returns when what was queued stands in the daemon; raises TierError where it does not within `timeout` seconds."""
    default().flush(timeout)


def sync() -> int:
    """Pulls what other writers published for the namespace; returns the number of new entries."""
    cache = default()
    return 0 if cache.shared is None else cache.shared.pull(cache.settings.namespace)


def gc() -> dict[str, int]:
    """Drops what expired and what is over the limit; returns {"dropped": entries}."""
    disk = default().disk
    return {"dropped": disk.cull() if disk is not None else 0}


def warm(
    function: Callable[..., Any],
    calls: Iterable[Any],
    *,
    workers: int = 4,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Calls `function` for each of `calls` (a tuple of arguments, a dict of keywords, or one argument) on threads.

    `progress` is told how many are done. Returns their number; the first exception of the origin is raised.
    """

    def one(call: Any) -> None:
        if isinstance(call, dict):
            function(**call)
        elif isinstance(call, tuple):
            function(*call)
        else:
            function(call)

    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="cachekit-warm") as pool:
        for _ in pool.map(one, calls):
            done += 1
            if progress is not None:
                progress(done)
    return done


def store(data: bytes | str | os.PathLike[str], pin: bool = False) -> str:
    """Puts bytes, or a file's bytes, into IPFS as they are, unencrypted; returns the CID. Raises TierError."""
    content = data if isinstance(data, bytes) else Path(data).read_bytes()
    return _ipfs().store(content, pin=pin)


def fetch(cid: str) -> bytes:
    """The verified bytes of a CID. Raises TierError where they cannot be had."""
    return _ipfs().fetch(cid)


def pins() -> list[dict[str, Any]]:
    """What this machine asked the daemon to keep."""
    return [pin._asdict() for pin in _ipfs().pins()]


def unpin(subject: Key | str) -> bool:
    """Gives up the references to a CID, or one key's; the daemon unpins with the last, at the next flush."""
    return _ipfs().unpin(subject) > 0


def _ipfs() -> IpfsTier:
    cache = default()
    if cache.shared is None:
        raise TierUnavailable(f"IPFS is off: {cache.status()['ipfs'].reason}", reason="off")
    return cache.shared.tier
