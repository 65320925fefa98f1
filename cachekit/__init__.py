"""Decorate a function; the next identical call, here or on a team-mate's machine, is a verified hit."""

from cachekit.answering import Wanted
from cachekit.answers import Answers
from cachekit.cached import Cached
from cachekit.decorators import distributed_cache, persist_artifact
from cachekit.default import add_listener, configure, current_mode, reset_stats, stats, status, tell
from cachekit.errors import CachekitError, CacheMiss, IntegrityError, TierError, TierUnavailable, UsageError
from cachekit.gate import bypass, mode, sample
from cachekit.model import MISS, Adapter, Event, Explanation, Key, Reply, Retry, Saving
from cachekit.operations import clear, fetch, flush, gc, invalidate, pins, restore, store, sync, unpin, warm
from cachekit.progress import Progress, on_progress

__all__ = [
    "MISS",
    "Adapter",
    "Answers",
    "CacheMiss",
    "Cached",
    "CachekitError",
    "Event",
    "Explanation",
    "IntegrityError",
    "Key",
    "Progress",
    "Reply",
    "Retry",
    "Saving",
    "TierError",
    "TierUnavailable",
    "UsageError",
    "Wanted",
    "add_listener",
    "bypass",
    "clear",
    "configure",
    "current_mode",
    "distributed_cache",
    "fetch",
    "flush",
    "gc",
    "invalidate",
    "mode",
    "on_progress",
    "persist_artifact",
    "pins",
    "reset_stats",
    "restore",
    "sample",
    "stats",
    "status",
    "store",
    "sync",
    "tell",
    "unpin",
    "warm",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("cachekit-ipfs")
    raise AttributeError(f"module 'cachekit' has no attribute {name!r}")
